"""Knowledge-refined label smoothing (Ding et al., AAAI 2021, Algorithm 1): a learned table of the wrong classes."""

from typing import Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Batch, Context, Method, check, other_classes


class KnowledgeRefined(Method):
    """The network minimizes CE + α·KL(p_res ‖ sg q_res), the table α·KL(q_res ‖ sg p_res).

    p_res is the softmax of the logits of all classes but the truth k, q_res = softmax(S_k), S the table, (K, K−1), zero
    at first. It is trained with the network's step size, without momentum and weight decay.

    Args:
        alpha: weight α ≥ 0.
    """

    def __init__(self, context: Context, *, alpha: float = 0.1) -> None:
        super().__init__(context)
        check("alpha", alpha, 0)
        self.alpha = alpha
        self.table = nn.Parameter(torch.zeros(context.classes, context.classes - 1))

    def loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        cross_entropy = F.cross_entropy(logits, target, reduction="none")
        network, table = self.divergences(logits, target)
        return cross_entropy + self.alpha * (network + table)

    def divergences(self, logits: Tensor, target: Tensor) -> Tuple[Tensor, Tensor]:
        """KL(p_res ‖ sg q_res) and KL(q_res ‖ sg p_res), each (N,)."""
        log_p = logits.gather(-1, other_classes(target, logits.size(-1))).log_softmax(dim=-1)
        log_q = self.table[target].log_softmax(dim=-1)
        return _divergence(log_p, log_q.detach()), _divergence(log_q, log_p.detach())

    def parameter_group(self) -> Optional[dict]:
        return {"params": [self.table], "momentum": 0.0, "weight_decay": 0.0}


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)

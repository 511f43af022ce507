"""Zipf's label smoothing (Liang et al., ECCV 2022): wrong classes follow Zipf's law, ranked by the network."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Batch, Context, Method, check, other_classes


class ZipfSmoothing(Method):
    """R = CE + λ·KL(q ‖ p_res), p_res the softmax of the logits of all classes but the truth k.

    q_j ∝ r_j^−s is a constant for the gradient; r_j is the rank of z_j among the logits of all classes, k among them,
    the largest first, equal ones sharing the best of their ranks. This is the paper's form that ranks by the last
    layer; the votes of a dense feature map need a network of their kind.

    Args:
        weight: λ ≥ 0.
        power: s ≥ 0.
    """

    def __init__(self, context: Context, *, weight: float = 0.1, power: float = 1.0) -> None:
        super().__init__(context)
        check("weight", weight, 0)
        check("power", power, 0)
        self.weight, self.power = weight, power

    def loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        others = other_classes(target, logits.size(-1))
        descending = -logits.detach()
        ranks = 1 + torch.searchsorted(descending.sort(dim=-1).values, descending)
        log_q = (-self.power * ranks.gather(-1, others).to(logits.dtype).log()).log_softmax(dim=-1)
        log_p = logits.gather(-1, others).log_softmax(dim=-1)
        distance = (log_q.exp() * (log_q - log_p)).sum(dim=-1)
        return F.cross_entropy(logits, target, reduction="none") + self.weight * distance

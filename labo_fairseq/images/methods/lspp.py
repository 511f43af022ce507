"""Label smoothing++ (Chhabra et al., BMVC 2024): a learned distribution over the wrong classes, one per class."""

from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from .base import Batch, Context, Method, check, other_classes

_LEAST = 1e-6  # added to a label before its logarithm, as in the authors' code: that of the truth's row may be 0


class LabelSmoothingPlusPlus(Method):
    """The network minimizes ½·CE(sg y, p), the table the reverse ½·CE(sg p, y), y = (1−α)·onehot(k) + α·softmax(C_k).

    CE(a, b) = −Σ_j a_j·log b_j; C is (K, K−1), zero at first, and softmax(C_k) gives nothing to k. The halves are the
    authors' code's. The table is trained as the network is, without weight decay.

    Args:
        alpha: mass α in [0, 1] of the wrong classes.
    """

    def __init__(self, context: Context, *, alpha: float = 0.1) -> None:
        super().__init__(context)
        check("alpha", alpha, 0, 1)
        self.alpha = alpha
        self.table = nn.Parameter(torch.zeros(context.classes, context.classes - 1))

    def loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        network, table = self.cross_entropies(logits, target)
        return (network + table) / 2

    def cross_entropies(self, logits: Tensor, target: Tensor) -> Tuple[Tensor, Tensor]:
        """CE(sg y, p) and CE(sg p, y), each (N,)."""
        log_p = logits.log_softmax(dim=-1)
        wrong = self.alpha * self.table[target].softmax(dim=-1)
        truth = torch.full_like(logits, 1 - self.alpha)
        label = truth.scatter(-1, other_classes(target, logits.size(-1)), wrong.to(logits.dtype))
        network = -(label.detach() * log_p).sum(dim=-1)
        return network, -(log_p.detach().exp() * (label + _LEAST).log()).sum(dim=-1)

    def parameter_group(self) -> Optional[dict]:
        return {"params": [self.table], "weight_decay": 0.0}

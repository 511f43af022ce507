"""Cross-entropy, without regularization: the paper's Base."""

from torch import Tensor
from torch.nn import functional as F

from .base import Batch, Method


class CrossEntropy(Method):
    """R = −log p_k."""

    mixable = True

    def loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits, target, reduction="none")

"""Cross-entropy, without regularization: the paper's Base."""

from typing import Optional

from torch import Tensor
from torch.nn import functional as F

from ...losses import cross_entropy_log_posterior
from .base import Batch, Method


class CrossEntropy(Method):
    """R = −log p_k."""

    mixable = True

    def loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits, target, reduction="none")

    def log_posterior(self, logits: Tensor) -> Optional[Tensor]:
        return cross_entropy_log_posterior(logits)

"""Label smoothing (Szegedy et al., 2016)."""

from typing import Optional

from torch import Tensor
from torch.nn import functional as F

from ...losses import label_smoothing_log_posterior
from .base import Batch, Context, Method, check


class LabelSmoothing(Method):
    """R = −Σ_j ((1−ε)·onehot(k) + ε/K)_j · log p_j. Where others spread ε over K−1 classes, theirs is (K−1)/K of it.

    Args:
        epsilon: smoothing mass ε in [0, 1].
    """

    mixable = True

    def __init__(self, context: Context, *, epsilon: float = 0.1) -> None:
        super().__init__(context)
        check("epsilon", epsilon, 0, 1)
        self.epsilon = epsilon

    def loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits, target, reduction="none", label_smoothing=self.epsilon)

    def log_posterior(self, logits: Tensor) -> Optional[Tensor]:
        # with all the mass on the uniform label, nothing is learned that could be recovered
        return label_smoothing_log_posterior(logits, self.epsilon) if self.epsilon < 1 else None

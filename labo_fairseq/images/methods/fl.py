"""The focal loss (Lin et al., 2017), as for translation."""

from typing import Optional

from torch import Tensor

from ...losses import focal_log_posterior, focal_terms
from .base import Batch, Context, Method, check


class Focal(Method):
    """R = −(1 − p_k)^γ · log p_k.

    Args:
        gamma: exponent γ ≥ 0.
    """

    def __init__(self, context: Context, *, gamma: float = 2.0) -> None:
        super().__init__(context)
        check("gamma", gamma, 0)
        self.gamma = gamma

    def loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        return focal_terms(logits, target, self.gamma).loss

    def log_posterior(self, logits: Tensor) -> Optional[Tensor]:
        return focal_log_posterior(logits, self.gamma)

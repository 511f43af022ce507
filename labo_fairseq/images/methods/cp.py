"""The confidence penalty (Pereyra et al., 2017), as for translation."""

from typing import Optional

from torch import Tensor

from ...losses import confidence_penalty_log_posterior, confidence_penalty_terms
from .base import Batch, Context, Method, check


class ConfidencePenalty(Method):
    """R = −log p_k − β·H(p).

    Args:
        beta: weight β ≥ 0 of the entropy.
    """

    mixable = True

    def __init__(self, context: Context, *, beta: float = 0.1) -> None:
        super().__init__(context)
        check("beta", beta, 0)
        self.beta = beta

    def loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        return confidence_penalty_terms(logits, target, self.beta).loss

    def log_posterior(self, logits: Tensor) -> Optional[Tensor]:
        return confidence_penalty_log_posterior(logits, self.beta)

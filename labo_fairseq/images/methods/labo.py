"""LABO (Lu et al., 2023), as for translation: label smoothing first, the optimal smoothing distribution afterwards.

The general objective (Eq. 8) for a soft label ``q`` instead of ``onehot(k)``, with ``β = ατ``, ``P* = softmax(z/τ)``:

    R(q) = (1−α)·CE(q, p) + α·CE(P*, p) + β·Σ_j P*_j·log(K·P*_j)

P*, α and so all but the first term do not depend on the label, and CE(q, p) = Σ_k q_k·CE(onehot(k), p). Since the q_k
sum to 1, R(q) = Σ_k q_k·R(onehot(k)): the loss of an image mixed of two (mixup, CutMix) is the weighted mean of the
losses for its two labels, and P* is the same optimum for both.
"""

from typing import Optional, Union

from torch import Tensor
from torch.nn import functional as F

from ...losses import labo_log_posterior, labo_terms
from ...losses.labo import ADAPTIVE, LaboOptions
from .base import Batch, Context, Method, check


class Labo(Method):
    """R of Eq. 14 after the warm-up, label smoothing in it (Algorithm 1).

    Args:
        tau: temperature τ = β/α > 0.
        alpha: smoothing mass α in [0, 1], or ``"adaptive"`` (Eq. 16).
        rho: ρ in [0.5, 1] of Eq. 16.
        warmup: share of all updates that are the warm-up.
        epsilon: smoothing mass ε of the warm-up.
    """

    mixable = True

    def __init__(
        self,
        context: Context,
        *,
        tau: float = 1.25,
        alpha: Union[str, float] = ADAPTIVE,
        rho: float = 0.5,
        warmup: float = 0.05,
        epsilon: float = 0.1,
    ) -> None:
        super().__init__(context)
        check("tau", tau, 0, above=True)
        check("rho", rho, 0.5, 1)
        LaboOptions(tau, alpha, rho)
        check("warmup", warmup, 0, 1)
        check("epsilon", epsilon, 0, 1)
        self.tau, self.alpha, self.rho, self.epsilon = tau, alpha, rho, epsilon
        self.warmup_updates = round(warmup * context.updates)

    def loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        if batch.update < self.warmup_updates:
            return F.cross_entropy(logits, target, reduction="none", label_smoothing=self.epsilon)
        return labo_terms(logits, target, self.tau, self.alpha, self.rho).loss

    def log_posterior(self, logits: Tensor) -> Optional[Tensor]:
        return labo_log_posterior(logits, self.tau, self.alpha, self.rho)

"""Class-wise self-knowledge distillation (Yun et al., CVPR 2020)."""

from typing import Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Batch, Context, Method, check, divergence


class ClassWiseSelfDistillation(Method):
    """R = CE + λ·T²·KL(sg p_T(x′) ‖ p_T(x)), x′ another image of the class with its own augmentation.

    x′ passes through the network without gradient, but in training mode: batch normalization sees it.

    Args:
        weight: λ ≥ 0.
        temperature: T > 0.
    """

    needs_partner = True
    forward_passes = 2

    def __init__(self, context: Context, *, weight: float = 1.0, temperature: float = 4.0) -> None:
        super().__init__(context)
        check("weight", weight, 0)
        check("temperature", temperature, 0, above=True)
        self.weight, self.temperature = weight, temperature

    def forward(self, model: nn.Module, batch: Batch) -> Tuple[Tensor, Tensor]:
        if batch.partner is None:
            raise ValueError("the batch has no partner images")
        logits = batch.logits(model, batch.images)
        with torch.no_grad():
            partner = batch.logits(model, batch.partner)
        return self.paired_loss(logits, partner, batch.target).mean(), logits

    def paired_loss(self, logits: Tensor, partner: Tensor, target: Tensor) -> Tensor:
        """The loss (N,) of logits (N, K), given those of the partners."""
        distance = divergence(logits / self.temperature, (partner / self.temperature).softmax(dim=-1))
        return F.cross_entropy(logits, target, reduction="none") + self.weight * self.temperature**2 * distance

"""Teacher-free regularization (Yuan et al., CVPR 2020): a virtual teacher that is right with probability 0.99.

The published objective and that of the authors' code differ. As coded, it is label smoothing: ``softmax(p^d/T)`` has
two values, so that ``(1−α)·CE + w·KL(softmax(p^d/T) ‖ p)`` is, but for a constant, ``1−α+w`` times label smoothing.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Batch, Context, Method, check, divergence

CODED, PUBLISHED = "coded", "published"


class TeacherFree(Method):
    """With p^d = 0.99 on the truth and the rest even:

    coded      R = (1−α)·CE + w·KL(softmax(p^d/T) ‖ p)
    published  R = (1−α)·CE + α·KL(p^d_T ‖ p_T), p^d_T ∝ (p^d)^(1/T)

    Args:
        form: ``"coded"`` or ``"published"``.
        alpha: α in [0, 1].
        temperature: T > 0.
        weight: w ≥ 0 of the coded form; in the authors' code α·m/K. Theirs for CIFAR-100: ResNet18 α 0.1, T 20, w 0.1;
            MobileNetV2 α 0.95, T 40, w 0.0095.
    """

    mixable = True
    right = 0.99  # what the virtual teacher gives the truth

    def __init__(
        self,
        context: Context,
        *,
        form: str = CODED,
        alpha: float = 0.1,
        temperature: float = 20.0,
        weight: float = 0.1,
    ) -> None:
        super().__init__(context)
        if form not in (CODED, PUBLISHED):
            raise ValueError(f"form must be {CODED} or {PUBLISHED}, got {form}")
        check("alpha", alpha, 0, 1)
        check("temperature", temperature, 0, above=True)
        check("weight", weight, 0)
        self.form, self.alpha, self.temperature, self.weight = form, alpha, temperature, weight

    def virtual_teacher(self) -> Tensor:
        """The labels (K, K) of all classes that stand in the divergence."""
        classes = self.context.classes
        wrong = (1 - self.right) / (classes - 1)
        scores = torch.tensor([self.right, wrong], dtype=torch.float64)
        if self.form == PUBLISHED:
            scores = scores.log()
        scores = scores / self.temperature
        log_sum = torch.logsumexp(torch.stack([scores[0], scores[1] + math.log(classes - 1)]), dim=0)
        on_truth, elsewhere = (scores - log_sum).exp().tolist()
        return torch.full((classes, classes), elsewhere).fill_diagonal_(on_truth)

    def loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        teacher = self.virtual_teacher().to(logits.device)[target]
        cross_entropy = F.cross_entropy(logits, target, reduction="none")
        if self.form == CODED:
            return (1 - self.alpha) * cross_entropy + self.weight * divergence(logits, teacher)
        return (1 - self.alpha) * cross_entropy + self.alpha * divergence(logits / self.temperature, teacher)

"""Knowledge distillation (Hinton et al., 2015) from a finished run."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Batch, Context, Method, check, divergence


class Distillation(Method):
    """R = (1−α)·CE + α·T²·KL(teacher_T ‖ p_T); the teacher sees the same augmented image, in eval mode.

    Args:
        teacher_path: checkpoint of a finished run; the context holds its network.
        alpha: weight α in [0, 1] of the teacher.
        temperature: T > 0.
    """

    needs_teacher = True
    mixable = True

    def __init__(
        self, context: Context, *, teacher_path: str = "", alpha: float = 0.5, temperature: float = 5.0
    ) -> None:
        super().__init__(context)
        check("alpha", alpha, 0, 1)
        check("temperature", temperature, 0, above=True)
        if context.teacher is None:
            raise ValueError("teacher_path must name the checkpoint of a finished run")
        self.alpha, self.temperature = alpha, temperature
        # in a list: it is no part of what is trained and saved
        self._teacher = [context.teacher.eval()]

    @property
    def teacher(self) -> nn.Module:
        """The trained network."""
        return self._teacher[0]

    def loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        with torch.no_grad():
            taught = (batch.logits(self.teacher, batch.images) / self.temperature).softmax(dim=-1)
        distance = divergence(logits / self.temperature, taught)
        cross_entropy = F.cross_entropy(logits, target, reduction="none")
        return (1 - self.alpha) * cross_entropy + self.alpha * self.temperature**2 * distance

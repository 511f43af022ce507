"""Progressive self-knowledge distillation (Kim et al., ICCV 2021): an image's label moves to its last prediction."""

import torch
from torch import Tensor

from .base import Batch, Context, Method, check


class ProgressiveSelfDistillation(Method):
    """R = CE((1−α_t)·onehot(k) + α_t·p′), p′ what the image was given in the last epoch, α_t = α·t/T in epoch t of T.

    There is no p′ in the first epoch: its label is one-hot.

    Args:
        alpha: α in [0, 1] of the last epoch.
    """

    predictions: Tensor  # (images, K), p′

    def __init__(self, context: Context, *, alpha: float = 0.8) -> None:
        super().__init__(context)
        check("alpha", alpha, 0, 1)
        self.alpha = alpha
        self.register_buffer("predictions", torch.zeros(context.images, context.classes))

    def loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        log_p = logits.log_softmax(dim=-1)
        mass = self.alpha * (batch.epoch + 1) / self.context.epochs if batch.epoch else 0.0
        indices = batch.indices.to(self.predictions.device)
        cross_entropy = -log_p.gather(-1, target[:, None]).squeeze(-1)
        smoothed = -(self.predictions[indices] * log_p).sum(dim=-1)
        self.predictions[indices] = log_p.detach().exp()
        return (1 - mass) * cross_entropy + mass * smoothed

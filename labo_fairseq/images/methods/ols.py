"""Online label smoothing (Zhang et al., IEEE TIP 2021): the labels of an epoch are what the last one predicted."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Batch, Context, Method, check


class OnlineLabelSmoothing(Method):
    """R = (1−α)·CE + α·CE(S[k]), S[k] the mean of p over the last epoch's correctly classified images of class k.

    S is uniform in the first epoch; the row of a class stays as it is after an epoch without a correct image.

    Args:
        alpha: α in [0, 1].
    """

    labels: Tensor  # (K, K), S
    sums: Tensor  # (K, K), of this epoch's p
    counts: Tensor  # (K,), of this epoch's correct images

    def __init__(self, context: Context, *, alpha: float = 0.5) -> None:
        super().__init__(context)
        check("alpha", alpha, 0, 1)
        self.alpha = alpha
        classes = context.classes
        self.register_buffer("labels", torch.full((classes, classes), 1 / classes))
        self.register_buffer("sums", torch.zeros(classes, classes))
        self.register_buffer("counts", torch.zeros(classes))

    def loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        log_p = logits.log_softmax(dim=-1)
        correct = logits.argmax(dim=-1) == target
        self.sums.index_add_(0, target[correct], log_p[correct].detach().exp())
        self.counts.index_add_(0, target[correct], torch.ones_like(target[correct], dtype=self.counts.dtype))
        smoothed = -(self.labels[target] * log_p).sum(dim=-1)
        return (1 - self.alpha) * F.cross_entropy(logits, target, reduction="none") + self.alpha * smoothed

    def end_epoch(self) -> None:
        mean = self.sums / self.counts.clamp(min=1)[:, None]
        self.labels.copy_(torch.where(self.counts[:, None] > 0, mean, self.labels))
        self.sums.zero_()
        self.counts.zero_()

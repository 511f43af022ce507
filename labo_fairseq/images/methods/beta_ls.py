"""Beta smoothing (Zhang and Sabuncu, NeurIPS 2020): random smoothing masses, the smallest for the surest images."""

from typing import Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Batch, Context, Method, check


class BetaSmoothing(Method):
    """R = (1−α)·CE + α·CE(label), label b on the truth and (1−b)/(K−1) elsewhere.

    The b of a batch are draws of Beta(β, 1), put in the order of the probabilities that a second network gives the
    truths. That network is a moving average of the trained one's parameters, from its own random start and in
    training mode.

    Args:
        alpha: α in [0, 1].
        beta: β > 0.
        decay: of the moving average; min(1 − 1/(t+1), decay) after update t.
    """

    forward_passes = 2

    def __init__(self, context: Context, *, alpha: float = 0.6, beta: float = 3.0, decay: float = 0.999) -> None:
        super().__init__(context)
        check("alpha", alpha, 0, 1)
        check("beta", beta, 0, above=True)
        check("decay", decay, 0, 1)
        self.alpha, self.beta, self.decay = alpha, beta, decay
        self.average = context.build().requires_grad_(False)

    def forward(self, model: nn.Module, batch: Batch) -> Tuple[Tensor, Tensor]:
        logits = batch.logits(model, batch.images)
        with torch.no_grad():
            average = batch.logits(self.average.train(), batch.images)
        return self.ranked_loss(logits, average, batch).mean(), logits

    def ranked_loss(self, logits: Tensor, average: Tensor, batch: Batch) -> Tensor:
        """The loss (N,) of logits (N, K), given those of the moving average."""
        probability = average.softmax(dim=-1).gather(-1, batch.target[:, None]).squeeze(-1)
        # the distribution function of Beta(β, 1) is x^β
        draws = torch.rand(len(logits), generator=batch.generator).pow(1 / self.beta).sort().values
        mass = torch.empty_like(probability)
        mass[probability.argsort()] = draws.to(mass)
        log_p = logits.log_softmax(dim=-1)
        right = log_p.gather(-1, batch.target[:, None]).squeeze(-1)
        wrong = (log_p.sum(dim=-1) - right) / (logits.size(-1) - 1)
        smoothed = -mass * right - (1 - mass) * wrong
        return (1 - self.alpha) * F.cross_entropy(logits, batch.target, reduction="none") + self.alpha * smoothed

    @torch.no_grad()
    def after_update(self, model: nn.Module, update: int) -> None:
        decay = min(1 - 1 / (update + 1), self.decay)
        for mean, trained in zip(self.average.parameters(), model.parameters()):
            mean.mul_(decay).add_(trained, alpha=1 - decay)

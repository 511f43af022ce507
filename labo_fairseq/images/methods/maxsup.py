"""Max suppression (NeurIPS 2025): label smoothing's penalty on the largest logit in place of the truth's."""

from torch import Tensor
from torch.nn import functional as F

from .base import Batch, Context, Method, check


class MaxSuppression(Method):
    """R = CE + λ·(max z − mean z), λ linear in the updates.

    Args:
        first, last: λ ≥ 0 at the beginning and at the end of the training.
    """

    mixable = True

    def __init__(self, context: Context, *, first: float = 0.1, last: float = 0.2) -> None:
        super().__init__(context)
        check("first", first, 0)
        check("last", last, 0)
        self.first, self.last = first, last

    def loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        progress = batch.update / max(self.context.updates - 1, 1)
        weight = self.first + progress * (self.last - self.first)
        penalty = logits.amax(dim=-1) - logits.mean(dim=-1)
        return F.cross_entropy(logits, target, reduction="none") + weight * penalty

"""What a training method for images can do: a loss, and where it needs them state, a partner image, a second model.

Notation of all methods: logits ``z`` of an image, ``p = softmax(z)``, ``p_T = softmax(z/T)``, truth ``k``, number of
classes ``K``, ``CE = −log p_k``. Losses are in nats, one an image; a batch's loss is their mean.
"""

import math
from typing import Any, Callable, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

from ...losses import distillation_terms
from ..workers import ALONE, Workers


class Batch(NamedTuple):
    """What a training step sees of the data and of the training.

    Where several processes train, everything is the same in all of them, but that each has the images of its share.
    """

    images: Tensor  # (n, C, H, W), float, augmented and normalized: this process's share of the N
    target: Tensor  # (N,), int64
    indices: Tensor  # (N,), int64, positions of the images in the training set
    epoch: int  # from 0
    update: int  # updates made before this one
    generator: torch.Generator  # on the CPU, for what a method draws
    partner: Optional[Tensor] = None  # as images, of the same classes; where a method asks for them
    other: Optional[Tensor] = None  # (N,), the second labels of mixed images
    share: Optional[Tensor] = None  # (N,), the share of ``target`` in mixed images
    workers: Workers = ALONE

    def logits(self, network: nn.Module, images: Tensor) -> Tensor:
        """What ``network`` computes of :attr:`images` or :attr:`partner`, for the whole batch: (N, K), float32."""
        return self.workers.gather(network(images), len(self.target)).float()


class Context(NamedTuple):
    """What a method may want to know of the training that it is made for."""

    classes: int
    images: int  # of the training set
    epochs: int
    updates: int  # of the whole training
    build: Callable[[], nn.Module]  # makes another network of the kind that is trained
    teacher: Optional[nn.Module] = None  # in eval mode


class Method(nn.Module):
    """A training objective.

    Parameters of a method are trained together with the network, see :meth:`parameter_group`; its buffers, parameters
    and modules are part of the training's checkpoints.

    Args:
        context: of the training; a subclass takes its options behind it, as keywords with defaults.
    """

    #: whether batches need a second image of the same class
    needs_partner = False
    #: whether the context needs a teacher
    needs_teacher = False
    #: of the trained network or a copy of it, per image of an update: what a training is expected to take
    forward_passes = 1
    #: whether images may be mixed: the loss is linear in the one-hot label, so that of a mixed label is the mean
    mixable = False

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    def forward(self, model: nn.Module, batch: Batch) -> Tuple[Tensor, Tensor]:
        """The loss of a batch, a scalar, and the logits (N, K), float32."""
        logits = batch.logits(model, batch.images)
        loss = self.loss(logits, batch.target, batch)
        if batch.other is not None and batch.share is not None:
            other = self.loss(logits, batch.other, batch)
            loss = batch.share * loss + (1 - batch.share) * other
        return loss.mean(), logits

    def loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """The loss (N,) of logits (N, K) for the labels ``target`` (N,)."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """What ``--criterion`` calls it."""
        return type(self).__module__.rpartition(".")[2]

    def log_posterior(self, logits: Tensor) -> Optional[Tensor]:
        """Logarithms of calibrated probabilities (N, K), where the objective can be inverted; None elsewhere."""
        return None

    def after_update(self, model: nn.Module, update: int) -> None:
        """Called when ``update`` updates have been made."""

    def end_epoch(self) -> None:
        """Called after the last update of an epoch."""

    def parameter_group(self) -> Optional[dict]:
        """Options of :class:`torch.optim.SGD` for the method's own parameters; None where it has none."""
        return None


def divergence(logits: Tensor, distribution: Tensor) -> Tensor:
    """KL(distribution ‖ softmax(logits)), (N,); ``distribution`` (N, K) is a constant for the gradient."""
    # the loss of distillation with all the weight on the teacher; then no label matters
    anything = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return distillation_terms(logits, anything, distribution, alpha=1.0).loss


def other_classes(target: Tensor, classes: int) -> Tensor:
    """The numbers of all classes but the truth, ascending: (N, K−1), int64."""
    others = torch.arange(classes - 1, device=target.device).expand(len(target), -1)
    return others + others.ge(target[:, None])


def check(name: str, value: Any, low: float, high: float = math.inf, above: bool = False) -> None:
    """ValueError where an option is not a finite number from ``low`` (or ``above`` it) to ``high``."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if number and (value > low if above else value >= low) and value <= high:
        return
    least = f"above {low:g}" if above else f"of at least {low:g}"
    most = f" and at most {high:g}" if high < math.inf else ""
    raise ValueError(f"{name} must be a number {least}{most}, got {value}")

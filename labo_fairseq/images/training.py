"""The training loop: a recipe, exact resume, the epoch chosen on validation images.

Every random number depends on the seed and on the place where it is drawn (see :mod:`.randomness`), and a checkpoint
holds everything else. So a training that was killed and resumed ends with the same weights, to the last bit, on the
same machine with the same number of threads.
"""

import math
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints import read_file, save_file
from ..errors import UserError
from ..subprocesses import peak_memory_mib
from .datasets import ImageData, ImageSet
from .methods import Batch, Context, Method
from .methods.base import check
from .randomness import Draws, generator_at, seed_at
from .transforms import Augmentation, augment, normalize
from .workers import ALONE, Workers

PRECISIONS = ("fp32", "bf16")

_EVALUATION_BATCH = 500


@dataclass(frozen=True)
class TrainingRecipe:
    """How to train; the defaults are the paper's for CIFAR."""

    epochs: int = 200
    batch: int = 128  # images of an update
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    milestones: Tuple[float, ...] = (0.3, 0.6, 0.8)  # shares of the epochs after which the rate is lowered
    decay: float = 0.2  # factor of the rate at a milestone
    precision: str = "fp32"  # or bf16
    channels_last: bool = False  # memory format
    mixup: float = 0.0  # a of Beta(a, a) of mixup; 0: none
    cutmix: float = 0.0  # likewise of CutMix
    save_every: int = 0  # updates between checkpoints; 0: at the ends of epochs

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 2), ("save_every", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value}")
        check("lr", self.lr, 0, above=True)
        check("momentum", self.momentum, 0, 1)
        for name in ("weight_decay", "mixup", "cutmix"):
            check(name, getattr(self, name), 0)
        check("decay", self.decay, 0, 1, above=True)
        if isinstance(self.milestones, (str, float, int)):
            raise ValueError(f"milestones must be a list of shares of the epochs, got {self.milestones}")
        for milestone in self.milestones:
            check("milestones", milestone, 0, 1)
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be {' or '.join(PRECISIONS)}, got {self.precision}")
        if not isinstance(self.channels_last, bool):
            raise ValueError(f"channels_last must be true or false, got {self.channels_last}")
        if self.mixup and self.cutmix:
            raise ValueError("mixup and cutmix exclude each other: set one of them to 0")

    def rate(self, epoch: int) -> float:
        """The learning rate of ``epoch``, from 0."""
        passed = sum(epoch >= round(share * self.epochs) for share in self.milestones)
        return self.lr * self.decay**passed


class Pixels(NamedTuple):
    """What happens to images before the network."""

    augmentation: Augmentation
    mean: Tuple[float, ...]
    std: Tuple[float, ...]


class Outcome(NamedTuple):
    """What a training ended with."""

    history: List[Dict[str, Any]]  # one record per epoch
    epoch: int  # that was chosen, from 1
    weights: Dict[str, Tensor]  # of that epoch
    peak_memory_mib: int
    seconds: float  # in training steps, over all starts


def check_mixing(recipe: TrainingRecipe, method: Method) -> None:
    """UserError where images are to be mixed and the method cannot take that."""
    if (recipe.mixup or recipe.cutmix) and not method.mixable:
        raise UserError(
            f"{method.name} cannot be trained with mixed images, its loss is not linear in the label: leave "
            "training.mixup and training.cutmix out"
        )


def updates_of_epoch(images: int, batch: int) -> int:
    """Batches of an epoch; a last one of a single image is left out, which batch normalization cannot take."""
    full, rest = divmod(images, batch)
    return full + (rest > 1)


class Trainer:
    """Trains a network with a method.

    Args:
        data: the images.
        build: makes the network, with fresh weights from torch's random numbers.
        make_method: makes the method, given its context.
        recipe, pixels, seed: as they say.
        checkpoint: file that the training is resumed from and saved in; None: nothing is saved.
        teacher: of the method, if it needs one.
        device: to train on; None: the GPU if there is one.
        workers: the processes that train together, each with such a trainer.
    """

    def __init__(
        self,
        data: ImageData,
        build: Callable[[], nn.Module],
        make_method: Callable[[Context], Method],
        recipe: TrainingRecipe,
        pixels: Pixels,
        seed: int = 1,
        checkpoint: Optional[Path] = None,
        teacher: Optional[nn.Module] = None,
        device: Optional[torch.device] = None,
        workers: Workers = ALONE,
    ) -> None:
        self.data, self.recipe, self.pixels, self.seed = data, recipe, pixels, seed
        self.checkpoint, self.workers = checkpoint, workers
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.batches = updates_of_epoch(len(data.train), recipe.batch)
        if not self.batches:
            raise UserError(f"{len(data.train)} training images are too few")
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        torch.manual_seed(seed_at(seed, "initialization"))
        self.network = build()
        context = Context(
            classes=len(data.classes),
            images=len(data.train),
            epochs=recipe.epochs,
            updates=recipe.epochs * self.batches,
            build=build,
            teacher=teacher.to(self.device) if teacher else None,
        )
        self.method = make_method(context)
        check_mixing(recipe, self.method)
        workers.synchronize(self.network)
        workers.synchronize(self.method)
        self.network.to(self.device)
        self.method.to(self.device)
        if recipe.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = _InPrecision(self.network, recipe.precision, self.device)
        self.optimizer = self._optimizer()
        self._partners = _ClassIndex(data.train.labels) if self.method.needs_partner else None
        self.update, self.history = 0, []  # type: int, List[Dict[str, Any]]
        self.best: Dict[str, Any] = {}
        self._epoch = _Totals()
        self.seconds = 0.0
        if checkpoint and checkpoint.exists():
            self._resume(checkpoint)

    def train(self, report: Callable[[Dict[str, Any]], None] = lambda record: None) -> Outcome:
        """Train to the end; ``report`` is given the record of every epoch.

        Raises:
            UserError: the loss is no longer finite, or an image cannot be read.
        """
        while self.update < self.recipe.epochs * self.batches:
            self._train_epoch(*divmod(self.update, self.batches))
            self.history.append(self._validated())
            self._epoch = _Totals()
            if self.checkpoint:
                self.save(self.checkpoint)
            report(self.history[-1])
        memory = self.workers.largest(_peak_memory(self.device), self.device)
        return Outcome(self.history, self.best["epoch"], self.best["weights"], memory, self.seconds)

    def predict(self, images: ImageSet) -> Tensor:
        """See :func:`predict`."""
        return predict(self.network, images, self.pixels, self.device, self.workers)

    def save(self, path: Path) -> None:
        """Write everything that the training needs to go on, atomically; of several processes the first one does."""
        if self.workers.rank:
            return
        state = {
            "weights": self.network.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "update": self.update,
            "history": self.history,
            "best": self.best,
            "epoch": vars(self._epoch),
            "seconds": self.seconds,
        }
        save_file(path, state)

    def _resume(self, path: Path) -> None:
        state = read_file(path, self.device)
        try:
            self.network.load_state_dict(state["weights"])
            self.method.load_state_dict(state["method"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.update, self.history, self.best = state["update"], state["history"], state["best"]
            self._epoch, self.seconds = _Totals(**state["epoch"]), state["seconds"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise UserError(f"{path} is no checkpoint of this training ({type(error).__name__}): delete it") from None

    def _optimizer(self) -> torch.optim.Optimizer:
        groups: List[Dict[str, Any]] = [{"params": list(self.network.parameters())}]
        own = self.method.parameter_group()
        if own:
            groups.append(own)
        recipe = self.recipe
        return torch.optim.SGD(groups, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)

    def _train_epoch(self, epoch: int, first: int) -> None:
        """The batches of ``epoch`` from number ``first`` on."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(epoch)
        self.network.train()
        self.method.train()
        started = time.perf_counter()
        for batch in self._load_ahead(epoch, first):
            self._step(batch)
            now = time.perf_counter()
            self._epoch.seconds += now - started
            self.seconds += now - started
            started = now
            every = self.recipe.save_every
            if self.checkpoint and every and self.update % every == 0 and self.update % self.batches:
                self.save(self.checkpoint)
                started = time.perf_counter()
        self.method.end_epoch()

    def _step(self, batch: Batch) -> None:
        # for networks that draw random numbers of their own, as dropout does; those of the processes must differ
        torch.manual_seed(seed_at(self.seed, "step", self.update, *([self.workers.rank] if self.workers.rank else [])))
        loss, logits = self.method(self.model, batch)
        value = loss.item()
        if not math.isfinite(value):
            raise UserError(
                f"the loss is {value} in update {self.update + 1} (epoch {batch.epoch + 1}): lower training.lr, or "
                "start over with another --seed"
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.workers.add_gradients(self.network.parameters())
        self.optimizer.step()
        self.update += 1
        self.method.after_update(self.network, self.update)
        self._epoch.images += len(batch.target)
        self._epoch.loss += value * len(batch.target)
        self._epoch.correct += int((logits.argmax(dim=-1) == batch.target).sum())

    def _load_ahead(self, epoch: int, first: int) -> Iterator[Batch]:
        """Batches of an epoch; the next one is made while one is trained on."""
        order = torch.randperm(len(self.data.train), generator=generator_at(self.seed, "order", epoch))
        parts = order.split(self.recipe.batch)[: self.batches]
        with ThreadPoolExecutor(1) as pool:
            coming = None
            for number in range(first, len(parts) + 1):
                made = coming and coming.result()
                if number < len(parts):
                    coming = pool.submit(self._batch, epoch, number, parts[number])
                if made:
                    yield self._on_device(made)

    def _batch(self, epoch: int, number: int, indices: Tensor) -> Batch:
        generator = generator_at(self.seed, "batch", epoch, number)
        train = self.data.train
        target = train.labels[indices]
        mixing = self.recipe.mixup or self.recipe.cutmix
        mine = self.workers.share(len(indices))
        # an image may be mixed with one of another process's
        images = self._pixels(train, indices, generator, slice(None) if mixing else mine)
        partner = other = share = None
        if self._partners:
            partner = self._pixels(train, self._partners.draw(target, generator), generator, mine)
        if mixing:
            images, other, share = (mix_up if self.recipe.mixup else cut_mix)(images, target, mixing, generator)
            images = images[mine]
        update = epoch * self.batches + number
        return Batch(images, target, indices, epoch, update, generator, partner, other, share, self.workers)

    def _pixels(self, images: ImageSet, indices: Tensor, generator: torch.Generator, wanted: slice) -> Tensor:
        draws = Draws(generator, len(indices), wanted)
        pixels = augment(images.load(indices[wanted], draws), self.pixels.augmentation, draws)
        return normalize(pixels, self.pixels.mean, self.pixels.std)

    def _on_device(self, batch: Batch) -> Batch:
        moved = {name: getattr(batch, name) for name in ("images", "target", "partner", "other", "share")}
        moved = {name: value if value is None else value.to(self.device) for name, value in moved.items()}
        if self.recipe.channels_last:
            for name in ("images", "partner"):
                if moved[name] is not None:
                    moved[name] = moved[name].contiguous(memory_format=torch.channels_last)
        return batch._replace(**moved)

    def _validated(self) -> Dict[str, Any]:
        """The record of the epoch that has just ended; its weights are kept if it is the best so far."""
        epoch, totals = self.update // self.batches, self._epoch
        record = {
            "epoch": epoch,
            "updates": self.update,
            "lr": self.recipe.rate(epoch - 1),
            "train_loss": totals.loss / totals.images,
            "train_accuracy": 100 * totals.correct / totals.images,
            "seconds": totals.seconds,
        }
        better, order = True, (0.0, 0.0)
        if self.data.valid is not None:
            logits = self.predict(self.data.valid)
            accuracy, nll = accuracy_and_nll(logits, self.data.valid.labels)
            record.update(valid_accuracy=accuracy, valid_nll=nll)
            order = (accuracy, -nll if math.isfinite(nll) else -math.inf)
            better = not self.best or order > tuple(self.best["order"])
        if better:
            weights = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
            self.best = {"epoch": epoch, "order": list(order), "weights": weights}
        return record


@dataclass
class _Totals:
    """Sums over what has been made of an epoch."""

    images: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0


class _InPrecision(nn.Module):
    """A network that computes in another precision where that is asked for."""

    def __init__(self, network: nn.Module, precision: str, device: torch.device) -> None:
        super().__init__()
        self.network, self.lower, self.kind = network, precision == "bf16", device.type

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(self.kind, dtype=torch.bfloat16, enabled=self.lower):
            return self.network(images)


class _ClassIndex:
    """The images of every class, to draw partners from."""

    def __init__(self, labels: Tensor) -> None:
        self._order = labels.sort(stable=True).indices
        self._counts = labels.bincount()
        self._starts = self._counts.cumsum(0) - self._counts

    def draw(self, target: Tensor, generator: torch.Generator) -> Tensor:
        """For every label an image of that class, uniformly at random."""
        places = (torch.rand(len(target), generator=generator) * self._counts[target]).long()
        places = places.minimum(self._counts[target] - 1)  # the product may round up
        return self._order[self._starts[target] + places]


def mix_up(
    images: Tensor, target: Tensor, strength: float, generator: torch.Generator
) -> Tuple[Tensor, Tensor, Tensor]:
    """mixup (Zhang et al., 2018): λ·x + (1−λ)·x′ of shuffled images x′, λ ~ Beta(strength, strength), one per batch.

    Returns:
        The images, the labels of x′ and the shares λ of ``target``.
    """
    share, order = _share_and_order(len(images), strength, generator)
    return share * images + (1 - share) * images[order], target[order], torch.full((len(images),), share)


def cut_mix(
    images: Tensor, target: Tensor, strength: float, generator: torch.Generator
) -> Tuple[Tensor, Tensor, Tensor]:
    """CutMix (Yun et al., 2019): a rectangle of shuffled images x′, of the share 1−λ of the area, cut at the borders.

    Returns:
        The images, the labels of x′ and the shares of the pixels that are left of the first images.
    """
    share, order = _share_and_order(len(images), strength, generator)
    height, width = images.shape[-2:]
    center = torch.rand(2, generator=generator).tolist()
    edges = []
    for size, middle in zip((height, width), center):
        half = size * math.sqrt(1 - share) / 2
        edges.append((max(0, round(size * middle - half)), min(size, round(size * middle + half))))
    (top, bottom), (left, right) = edges
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[order, :, top:bottom, left:right]
    left_over = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, target[order], torch.full((len(images),), left_over)


def _share_and_order(count: int, strength: float, generator: torch.Generator) -> Tuple[float, Tensor]:
    # torch's Beta distribution takes no generator
    seed = int(torch.randint(1 << 62, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(strength, strength))
    return share, torch.randperm(count, generator=generator)


@torch.no_grad()
def predict(
    network: nn.Module, images: ImageSet, pixels: Pixels, device: torch.device, workers: Workers = ALONE
) -> Tensor:
    """Logits (N, K), float32, on the CPU, of images without augmentation, in eval mode; the ``workers`` share them."""
    training = network.training
    network.eval()
    logits = []
    for indices in torch.arange(len(images)).split(_EVALUATION_BATCH):
        mine = images.load(indices[workers.share(len(indices))])
        share = network(normalize(mine, pixels.mean, pixels.std).to(device)).float()
        logits.append(workers.gather(share, len(indices)).cpu())
    network.train(training)
    return torch.cat(logits)


def accuracy_and_nll(logits: Tensor, labels: Tensor) -> Tuple[float, float]:
    """Percent of right predictions, and mean −log p_k in nats."""
    log_p = logits.double().log_softmax(dim=-1)
    nll = -log_p.gather(-1, labels[:, None]).mean()
    return 100 * float((logits.argmax(dim=-1) == labels).double().mean()), float(nll)


def _peak_memory(device: torch.device) -> int:
    """MiB: of the GPU where there is one, of this process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    return peak_memory_mib(resource.RUSAGE_SELF)

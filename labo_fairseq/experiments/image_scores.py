"""The scores of runs on images as tables and comparisons read them, and whether their differences are chance."""

import json
import statistics
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from torch import Tensor

from ..errors import UserError
from ..evaluation.significance import (
    SAMPLES,
    SEED,
    Compared,
    Difference,
    paired_p,
    plus_minus,
    refuse_single,
    resample_sums,
    sample_std,
    spread,
)
from ..reporting.table import Table
from .image_result import TEST, ImageCost, ImageRun

ACCURACY = "accuracy"


class ImageMetric(NamedTuple):
    """A score for image runs; ECE, which is no mean over images, cannot be tested."""

    lower_is_better: bool
    digits: int  # that tables show behind the point: of percent and of nats
    values: Optional[Callable[[Tensor, Tensor], Tensor]]  # logits (N, K), labels (N,) → (N,), whose mean is the score

    def text(self, values: Sequence[float]) -> str:
        """Their mean ± standard deviation of a sample, as tables show them; nothing of none."""
        if not values:
            return ""
        return f"{statistics.mean(values):.{self.digits}f}{plus_minus(sample_std(values), self.digits)}"


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    return 100 * (logits.argmax(dim=-1) == labels).double()


def _nll(logits: Tensor, labels: Tensor) -> Tensor:
    return -logits.double().log_softmax(dim=-1).gather(-1, labels[:, None]).squeeze(-1)


#: name in the results → metric, in the order of the tables
IMAGE_METRICS = {
    ACCURACY: ImageMetric(False, 2, _right),
    "NLL": ImageMetric(True, 3, _nll),
    **{
        f"{score} ({kind})": ImageMetric(True, digits, None)
        for kind in ("posterior", "temperature")
        for score, digits in (("NLL", 3), ("ECE", 2))
    },
    "ECE": ImageMetric(True, 2, None),
}


def find_image_metric(name: str) -> str:
    """The name of a score in results; case is ignored.

    Raises:
        UserError: there is none.
    """
    for known in IMAGE_METRICS:
        if known.lower() == name.lower():
            return known
    raise UserError(f"unknown score for image runs {name!r}: choose from {', '.join(IMAGE_METRICS)}")


def image_statistics(run: ImageRun, name: str) -> Optional[np.ndarray]:
    """(images, 2) of the test set: the score of every image, and 1; None where it is no mean over images."""
    values = IMAGE_METRICS[name].values
    if values is None:
        return None
    numbers = values(*run.logits(TEST)).numpy()
    return np.stack([numbers, np.ones_like(numbers)], axis=1)


def mean_of_sums(sums: np.ndarray) -> np.ndarray:
    """The score (...) from sums (..., 2) of :func:`image_statistics`."""
    return sums[..., 0] / sums[..., 1]


def compare_image_runs(runs: Sequence[ImageRun], metrics: Sequence[str] = (), samples: int = SAMPLES) -> List[Compared]:
    """Scores of finished runs on the same test images, tested against the first by a bootstrap paired over images.

    Args:
        metrics: names of scores; none: accuracy and NLL.

    Raises:
        UserError: fewer than two runs, other images, or a score that cannot be tested.
    """
    refuse_single(runs)
    refuse_other_images(runs)
    names = [find_image_metric(name) for name in metrics or (ACCURACY, "NLL")]
    return [line for name in names for line in compare_on(runs, name, samples)]


def compare_on(runs: Sequence[ImageRun], name: str, samples: int = SAMPLES) -> List[Compared]:
    """One score of runs on the same test images, tested against the first of them.

    Raises:
        UserError: the score is no mean over images.
    """
    rows = [image_statistics(run, name) for run in runs]
    known = [one for one in rows if one is not None]
    if len(known) < len(rows):
        raise UserError(f"{name} is no mean over images, so its differences cannot be tested")
    sampled = resample_sums(mean_of_sums, known, samples)
    signature = f"n:{len(known[0])}|bs:{samples}|seed:{SEED}"
    compared = []
    for number, run in enumerate(runs):
        mean, interval = spread(sampled[number])
        p = paired_p(sampled[0], sampled[number]) if number else None
        score = float(sampled[number][0])
        digits = IMAGE_METRICS[name].digits
        compared.append(Compared(str(run.folder), name, score, mean, interval, p, signature, digits))
    return compared


def refuse_other_images(runs: Sequence[ImageRun]) -> None:
    """UserError where ``runs`` were trained on different images."""

    def images(run: ImageRun) -> Tuple[object, ...]:
        return run.config["dataset"], run.files, run.config["data"], run.config["smoke"]

    for run in runs[1:]:
        if images(run) != images(runs[0]):
            raise UserError(f"{run.folder} and {runs[0].folder} were trained on different images")


def accuracy_curve(log: Path) -> Tuple[List[Tuple[int, float]], str]:
    """(updates, accuracy) of every epoch, and on which images: ``"validation"``, or ``"training"`` without these."""
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    key, images = ("valid_accuracy", "validation") if has_validation(records) else ("train_accuracy", "training")
    return [(record["updates"], record[key]) for record in records], images


def has_validation(records: Sequence[Dict[str, Any]]) -> bool:
    """Whether the epochs of a training log were validated; all are, or none."""
    return all("valid_accuracy" in record for record in records)


def base_of(methods: Dict[str, str], otherwise: str) -> str:
    """The reference for relative cost: the first cross-entropy run (or variant), else ``otherwise``.

    Args:
        methods: run, or variant → its method.
    """
    return next((name for name, method in methods.items() if method == "ce"), otherwise)


class Cost(NamedTuple):
    """What a method takes: of one run, or of its runs."""

    seconds_per_epoch: float
    peak_memory_mib: int

    @classmethod
    def of(cls, trainings: Sequence[ImageCost]) -> "Cost":
        """The median time, the largest memory."""
        seconds = statistics.median(one.seconds_per_epoch for one in trainings)
        return cls(seconds, max(one.peak_memory_mib for one in trainings))

    def cells(self, base: "Cost") -> Tuple[str, str, str, str]:
        """Seconds per epoch and peak memory, both also relative to ``base``."""
        return (
            f"{self.seconds_per_epoch:.1f}",
            f"{self.seconds_per_epoch / base.seconds_per_epoch:.2f}",
            f"{self.peak_memory_mib:,}",
            f"{self.peak_memory_mib / base.peak_memory_mib:.2f}",
        )


def all_scores(title: str, runs: Dict[str, Dict[int, ImageRun]], baseline: str) -> Table:
    """Every score and the cost of all methods, mean ± standard deviation of a sample over the seeds.

    Args:
        runs: variant → seed → finished run.
        baseline: the variant whose time and memory are 1 where there is none of cross-entropy.
    """
    results = {variant: [run.read_result() for run in seeds.values()] for variant, seeds in runs.items()}
    scores = {variant: [one.scores for one in of_variant] for variant, of_variant in results.items()}
    names = [name for name in IMAGE_METRICS if any(name in one for ones in scores.values() for one in ones)]
    costs = {variant: Cost.of([one.training for one in of_variant]) for variant, of_variant in results.items()}
    methods = {variant: next(iter(seeds.values())).method for variant, seeds in runs.items()}
    base = base_of(methods, baseline if baseline in runs else next(iter(runs)))
    rows = []
    for variant, of_variant in results.items():
        cells = [
            IMAGE_METRICS[name].text([one[name].value for one in scores[variant] if name in one]) for name in names
        ]
        rows.append((variant, str(len(of_variant)), *cells, *costs[variant].cells(costs[base])))
    header = ("method", "seeds", *names, "s per epoch", "relative", "MiB", "relative")
    return Table(f"{title}; time and memory relative to {base}", header, rows)


def chosen_variants(runs: Dict[str, List[ImageRun]]) -> Dict[str, str]:
    """Method → its variant with the highest mean accuracy on the validation images; the first of equal ones.

    Args:
        runs: variant → its finished runs, one per seed.
    """
    best: Dict[str, Tuple[float, str]] = {}
    for variant, of_variant in runs.items():
        method = of_variant[0].method
        validation = [score for run in of_variant for score in run.read_result().evaluation.validation]
        scores = [score.value for score in validation if score.name == ACCURACY]
        if scores and (method not in best or statistics.mean(scores) > best[method][0]):
            best[method] = statistics.mean(scores), variant
    return {method: variant for method, (_, variant) in best.items()}


def tuned(title: str, runs: Dict[str, Dict[int, ImageRun]], baseline: str) -> Optional[Table]:
    """Accuracy of the variant of every method that validation chose, tested against that of the baseline's method.

    None where there are no validation images to choose on.

    Args:
        runs: variant → seed → finished run.
        baseline: a variant of the method that the others are compared with.
    """
    chosen = chosen_variants({variant: list(seeds.values()) for variant, seeds in runs.items()})
    if not chosen:
        return None
    sums = {
        (variant, seed): image_statistics(runs[variant][seed], ACCURACY)
        for variant in chosen.values()
        for seed in runs[variant]
    }
    sampled = dict(zip(sums, resample_sums(mean_of_sums, [one for one in sums.values() if one is not None])))
    first = runs.get(baseline)
    base = chosen.get(next(iter(first.values())).method) if first else None
    rows, accuracy = [], IMAGE_METRICS[ACCURACY]
    for method, variant in chosen.items():
        seeds = sorted(runs[variant])
        against = ""
        shared = sorted(set(seeds) & set(runs[base])) if base and base != variant else []
        if shared and base:
            theirs, mine = (np.stack([sampled[name, seed] for seed in shared]) for name in (base, variant))
            against = Difference.of_samples(shared, theirs, mine).text(accuracy.digits)
        accuracies = [float(sampled[variant, seed][0]) for seed in seeds]
        rows.append((method, variant, str(len(seeds)), accuracy.text(accuracies), against))
    # without a finished run of the baseline there is nothing to differ from
    shown = 5 if base else 4
    header = ("method", "chosen", "seeds", ACCURACY, f"Δ to {base}")
    return Table(title, header[:shown], [row[:shown] for row in rows])

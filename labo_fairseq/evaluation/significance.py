"""Whether one system is better than another on the same test set: paired bootstrap resampling (Koehn, 2004).

One test for all: of one seed or several, of any metric whose corpus score follows from sums over sentences. A sentence
that is drawn is drawn for every seed of both systems, because their translations of it are not independent.
"""

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any, Callable, Collection, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..data.types import Scoring
from ..errors import UserError
from .metrics import Metric, Translation, find_metric, score, sentence_statistics
from .runs import Run, RunFolder, refuse_repeated, refuse_unlike

SAMPLES, SEED = 1000, 12345  # sacreBLEU's defaults
DEFAULT = ("bleu", "chrf")  # the metrics of a comparison
_BLOCK = 1 << 22  # drawn sentences at a time


@dataclass(frozen=True)
class Compared:
    """One metric of one system."""

    system: str
    metric: str
    score: float
    mean: float  # over the bootstrap's samples
    interval: float  # half the width of the middle 95 % of the samples
    p: Optional[float]  # that a difference from the first system is chance; None: this is the first system
    signature: str
    digits: int = 2  # that a table shows behind the point

    def to_json(self) -> Dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "digits"}


def paired_p(baseline: np.ndarray, system: np.ndarray) -> float:
    """Probability that a difference of scores as large as the one seen, in either direction, is chance.

    The share of samples whose difference departs from the mean of all samples at least as far as the one seen departs
    from 0, one added to both counts. sacreBLEU counts departures in one direction, so that its p is about half of
    this one.

    Args:
        baseline, system: (..., 1 + samples), what :func:`resample` returns for the seeds of one system; their mean is
            compared.
    """
    differences = _mean_over_seeds(system) - _mean_over_seeds(baseline)
    departures = np.abs(differences[1:] - differences[1:].mean())
    return float((np.sum(departures >= abs(differences[0])) + 1) / len(differences))


def resample(metric: Metric, statistics: Sequence[np.ndarray], samples: int = SAMPLES, seed: int = SEED) -> np.ndarray:
    """Scores of a test set and of ``samples`` draws from it; sacreBLEU draws the same with the same seed.

    Args:
        statistics: (sentences, S) of each translation, see :func:`sentence_statistics`.
        samples: each as large as the test set.

    Returns:
        (translations, 1 + samples), in percent.

    Raises:
        UserError: different numbers of sentences; ``samples`` or ``seed`` below 1.
    """
    if metric.decomposition is None:
        raise UserError(f"{metric.key} cannot be tested")
    return resample_sums(metric.decomposition.corpus_score, statistics, samples, seed)


def resample_sums(
    corpus_score: Callable[[np.ndarray], np.ndarray],
    statistics: Sequence[np.ndarray],
    samples: int = SAMPLES,
    seed: int = SEED,
) -> np.ndarray:
    """As :func:`resample`, for any score of sums over the items of a test set: its sentences, or its images.

    Args:
        corpus_score: (..., S) sums → (...) scores.
        statistics: (items, S) of each system.
    """
    for name, value in (("samples", samples), ("seed", seed)):
        if value < 1:
            raise UserError(f"the bootstrap's {name} must be an integer ≥ 1, got {value}")
    if len({len(rows) for rows in statistics}) != 1:
        lengths = ", ".join(str(len(rows)) for rows in statistics)
        raise UserError(f"the bootstrap needs translations of the same lines, got {lengths or 'no'} lines")
    together = np.stack(statistics, axis=1)  # (sentences, translations, S)
    sentences, *shape = together.shape
    flat = together.reshape(sentences, -1)
    sums = [flat.sum(axis=0, keepdims=True)]
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // sentences)
    for start in range(0, samples, rows):
        drawn = generator.integers(sentences, size=(min(rows, samples - start), sentences))
        # how often each sentence was drawn; a product of matrices then takes the place of adding up what was drawn
        offsets = sentences * np.arange(len(drawn))[:, None]
        counts = np.bincount((drawn + offsets).ravel(), minlength=drawn.size).reshape(drawn.shape)
        sums.append(counts.astype(np.float64) @ flat)
    return corpus_score(np.concatenate(sums).reshape(1 + samples, *shape)).T


def sample_std(values: Collection[float]) -> Optional[float]:
    """The standard deviation of a sample; None for one value."""
    return statistics.stdev(values) if len(values) > 1 else None


def plus_minus(std: Optional[float], digits: int = 2) -> str:
    """What tables show of a standard deviation, behind its mean; nothing of None."""
    return "" if std is None else f" ± {std:.{digits}f}"


class Difference(NamedTuple):
    """How much better or worse a system is than the baseline, over the seeds that both have."""

    by_seed: Dict[int, float]
    p: Optional[float]  # over the items of the test set, given these seeds; None where the score cannot be tested

    @classmethod
    def of_samples(cls, seeds: Sequence[int], baseline: np.ndarray, system: np.ndarray) -> "Difference":
        """That of (seeds, 1 + samples) scores each, see :func:`resample`."""
        by_seed = dict(zip(seeds, (system[:, 0] - baseline[:, 0]).tolist()))
        return cls(by_seed, paired_p(baseline, system))

    @property
    def mean(self) -> float:
        return statistics.mean(self.by_seed.values())

    @property
    def std(self) -> Optional[float]:
        """Of a sample; None for one seed."""
        return sample_std(self.by_seed.values())

    @property
    def p_over_seeds(self) -> Optional[float]:
        """That other seeds would have no difference: the paired t-test, two-sided; None where the seeds do not differ.

        It takes the test set for given, as :attr:`p` does the seeds.
        """
        if not self.std:
            return None
        return student_p(self.mean / self.std * math.sqrt(len(self.by_seed)), len(self.by_seed) - 1)

    def text(self, digits: int = 2) -> str:
        """As tables show it, with so many digits behind the point."""
        p = "" if self.p is None else f", p {self.p:.3f}"
        over_seeds = "" if self.p_over_seeds is None else f", over seeds {self.p_over_seeds:.3f}"
        return f"Δ {self.mean:+.{digits}f}{plus_minus(self.std, digits)}{p}{over_seeds}"


def student_p(t: float, freedom: int) -> float:
    """Probability of a value at least as far from 0 as ``t`` under Student's distribution.

    For a whole number of degrees of freedom it is a finite sum (Abramowitz and Stegun, 1964, 26.7.3 and 26.7.4).
    """
    angle = math.atan2(abs(t), math.sqrt(freedom))
    square = math.cos(angle) ** 2
    odd = freedom % 2
    term = total = 1.0
    for number in range(1, (freedom - odd) // 2):
        term *= square * (2 * number - 1 + odd) / (2 * number + odd)
        total += term
    if not odd:
        return 1 - math.sin(angle) * total
    inner = math.sin(angle) * math.cos(angle) * total if freedom > 1 else 0.0
    return 1 - 2 / math.pi * (angle + inner)


def pool_tests(tests: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over test sets of what :func:`resample` returns for the same systems, (..., 1 + samples) each.

    What is drawn from one test set must say nothing of what is drawn from another, though their numbers are the same:
    so the samples of each are put in an order of their own.
    """
    samples = tests[0].shape[-1] - 1
    orders = (np.random.default_rng(number).permutation(samples) + 1 for number in range(len(tests)))
    return np.mean([test[..., np.append(0, order)] for test, order in zip(tests, orders)], axis=0)


def spread(scores: np.ndarray) -> Tuple[float, float]:
    """Mean of the samples, and half the width of their middle 95 %, cut as sacreBLEU cuts it.

    Args:
        scores: (1 + samples,), one row of :func:`resample`.
    """
    ordered = np.sort(scores[1:])
    low = len(ordered) // 40
    return float(ordered.mean()), float(ordered[-1 - low] - ordered[low]) / 2


def compare(
    metrics: Sequence[Metric],
    systems: Mapping[str, Translation],
    scoring: Optional[Scoring] = None,
    samples: int = SAMPLES,
    seed: int = SEED,
) -> List[Compared]:
    """Scores of translations of the same test set, tested against the first. Equal arguments give equal results.

    Args:
        systems: name → translation; two or more.
        samples, seed: see :func:`resample`.

    Returns:
        The first metric of every system in their order, then the second, and so on.

    Raises:
        UserError: fewer than two systems, or see :func:`sentence_statistics` and :func:`resample`.
    """
    if len(systems) < 2:
        raise UserError("a comparison needs at least two systems")
    for name, translation in systems.items():
        hypotheses, references = len(translation.raw.hypotheses), len(translation.raw.references)
        if not references:
            raise UserError("the references are empty: there is nothing to compare on")
        if hypotheses != references:
            raise UserError(f"{name} has {hypotheses} lines, but the references have {references}")
    compared = []
    for metric in metrics:
        statistics = [sentence_statistics(metric, translation, scoring) for translation in systems.values()]
        sampled = resample(metric, statistics, samples, seed)
        for number, (name, translation) in enumerate(systems.items()):
            whole = score(metric, translation, scoring)
            mean, interval = spread(sampled[number])
            compared.append(
                Compared(
                    system=name,
                    metric=whole.name,
                    score=whole.value,
                    mean=mean,
                    interval=interval,
                    p=paired_p(sampled[0], sampled[number]) if number else None,
                    signature=f"{whole.signature}|bs:{samples}|seed:{seed}",
                    digits=metric.digits,
                )
            )
    return compared


def compare_runs(
    runs: Sequence[Run], test: Optional[str] = None, metrics: Sequence[str] = (), samples: int = SAMPLES
) -> List[Compared]:
    """Scores of finished runs, tested against the first of them.

    Args:
        test: name of the test set's files; None: the main one.
        metrics: keys or names in the registry; none: BLEU and chrF.
        samples: of the bootstrap.

    Raises:
        UserError: fewer than two runs, a test set that is not theirs, runs on different data, or see :func:`compare`.
    """
    refuse_single(runs)
    first = runs[0]
    names = {
        first.data.split(split, *direction): (split, direction)
        for direction in first.directions
        for split in first.data.tests
    }
    name = test or next(iter(names))
    if name not in names:
        raise UserError(f"{first.folder} has no test set {name!r}: choose from {', '.join(names)}")
    refuse_unlike(runs)
    split, direction = names[name]
    scoring = first.data.scoring_for(direction[1])
    systems = {str(run.folder): run.translated(split, direction) for run in runs}
    return compare([find_metric(key, scoring) for key in metrics or DEFAULT], systems, scoring, samples)


def refuse_single(runs: Sequence[RunFolder]) -> None:
    """UserError where there is nothing to compare: a single run, or one that is named twice."""
    if len(runs) < 2:
        raise UserError("a comparison needs at least two runs")
    refuse_repeated([run.folder for run in runs])


def render(compared: Sequence[Compared]) -> str:
    """A table of what :func:`compare` returns, one block per metric with its signature below."""
    width = max(len(line.system) for line in compared)
    lines: List[str] = []
    for metric in dict.fromkeys(line.metric for line in compared):
        block = [line for line in compared if line.metric == metric]
        lines.append(f"{metric:<{width}}  {'score':>6}  {'mean ± 95 %':>14}  {'p':>6}")
        for line in block:
            p = "" if line.p is None else f"{line.p:.4f}"
            interval = f"{line.mean:.{line.digits}f}{plus_minus(line.interval, line.digits)}"
            lines.append(f"{line.system:<{width}}  {line.score:>6.{line.digits}f}  {interval:>14}  {p:>6}".rstrip())
        lines += [f"({block[0].signature})", ""]
    return "\n".join(lines[:-1])


def _mean_over_seeds(scores: np.ndarray) -> np.ndarray:
    return scores.reshape(-1, scores.shape[-1]).mean(axis=0)

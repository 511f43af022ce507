"""How probable a model finds the tokens that it chooses (figure 2 of the paper); predictions under teacher forcing."""

from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from ..evaluation.runs import Run, runs_by_name
from ..reporting.figure import Figure, legend_above, plain
from ..reporting.table import Table
from .base import AnalysisResult
from .calibration import (
    AnalysisInBins,
    Bin,
    Predictions,
    check_bins,
    expected_calibration_error,
    join,
    predictions,
    reliability,
)
from .frequency import PARTS, source_scores, thirds, training_counts
from .hypotheses import TRANSLATIONS, decode, held_out
from .teacher_forcing import TeacherForcedModel, reference_pairs

HISTOGRAM_BINS = 20
WHOLE = "all"

#: of the parts; each is seen on white and on black
_PART_COLORS = dict(zip(PARTS, ("#7A6FCC", "#2A9D8F", "#E08E1B")))


@dataclass(frozen=True)
class HypothesisSummary:
    """Probabilities of the tokens of best hypotheses, the end of the sentence included."""

    tokens: int
    mean: Optional[float]  # None without a token
    median: Optional[float]
    peak: Optional[float]  # middle of the fullest bin of the histogram
    histogram: List[float]  # share of the tokens in each of HISTOGRAM_BINS equal parts of [0, 1]


@dataclass(frozen=True)
class TeacherForcedSummary:
    """Predictions under teacher forcing, means over tokens."""

    tokens: int
    probability: float  # of the reference token
    confidence: float  # of the most probable token
    accuracy: float  # how often that is the reference token
    entropy: float  # bits
    ece: float  # expected calibration error
    reliability: List[Bin]


@dataclass(frozen=True)
class Confidence:
    """Both, of one system on one part of a test set."""

    test: str
    system: str
    part: str  # one of frequency.PARTS, or WHOLE
    chosen: HypothesisSummary
    forced: TeacherForcedSummary

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)


def summarize_hypotheses(sentences: Sequence[np.ndarray]) -> HypothesisSummary:
    """Summary of the probabilities (tokens,) of each sentence's hypothesis tokens."""
    values = np.concatenate([*sentences, np.zeros(0)])
    if not len(values):
        return HypothesisSummary(0, None, None, None, [0.0] * HISTOGRAM_BINS)
    counts, edges = np.histogram(values, HISTOGRAM_BINS, (0, 1))
    fullest = int(counts.argmax())
    peak = float(edges[fullest] + edges[fullest + 1]) / 2
    shares = [float(count) / len(values) for count in counts]
    return HypothesisSummary(len(values), float(values.mean()), float(np.median(values)), peak, shares)


def summarize_teacher_forced(tokens: Predictions, bins: int = 10) -> TeacherForcedSummary:
    """Summary of predictions under teacher forcing, of which there must be one.

    Args:
        bins: of the calibration error.
    """
    diagram = reliability(tokens.confidence, tokens.correct, bins)
    probability, confidence, accuracy, entropy = (float(values.mean()) for values in tokens)
    error = expected_calibration_error(diagram)
    return TeacherForcedSummary(len(tokens.correct), probability, confidence, accuracy, entropy, error, diagram)


class ConfidenceAnalysis(AnalysisInBins):
    """Probabilities of hypothesis tokens on the thirds by Frequency Score (figure 2); teacher-forced predictions."""

    name = "confidence"
    summary = "probabilities of hypothesis tokens on frequent and on rare text (figure 2), and under teacher forcing"
    description = (
        "The probabilities of the tokens that beam search with beam 5 chose; and, with the reference given token by "
        "token, accuracy, confidence, entropy and expected calibration error."
    )

    def run(self, runs: Sequence[Run], folder: Path, **options: Any) -> AnalysisResult:
        """Options: ``bins`` of the expected calibration error."""
        bins = options.get("bins", 10)
        check_bins(bins)
        systems, tests = runs_by_name(runs), held_out(runs[0])
        counts = training_counts(runs[0])
        models = {
            (name, direction): TeacherForcedModel(run, direction)
            for name, run in systems.items()
            for direction in run.directions
        }
        decoded = {name: decode(run, tests, folder / TRANSLATIONS) for name, run in systems.items()}
        measured: List[Confidence] = []
        for test in tests:
            scores = source_scores(runs[0], test, counts)
            parts = {**dict(zip(PARTS, thirds(scores))), WHOLE: list(range(len(scores)))}
            for name, run in systems.items():
                probabilities = decoded[name][test].probabilities
                pairs = reference_pairs(run, test)
                told = models[name, test.direction].map(pairs, predictions, f"{name}, {test.name}")
                for part, indices in parts.items():
                    hypotheses = summarize_hypotheses([probabilities[index] for index in indices])
                    references = summarize_teacher_forced(join(told[index] for index in indices), bins)
                    measured.append(Confidence(test.name, name, part, hypotheses, references))
        return confidence_result(measured, bins)


def confidence_result(measured: Sequence[Confidence], bins: int) -> AnalysisResult:
    """Figure 2 and the tables; ``bins`` as in :func:`summarize_teacher_forced`."""
    tests, systems = (list(dict.fromkeys(getattr(one, name) for one in measured)) for name in ("test", "system"))
    return AnalysisResult(
        "confidence",
        "Confidence",
        "Hypothesis tokens: the probability that a model gave each token of its best hypothesis, beam 5, the end of "
        "the sentence included; the peak is the middle of the histogram's highest bin. Teacher forcing, the reference "
        "given token by token: how often the most probable token is the reference token (accuracy), its probability "
        "(confidence), that of the reference token (reference), the entropy of the prediction in bits, and the "
        f"expected calibration error (ECE) in {bins} bins.",
        [table for test in tests for table in _tables([one for one in measured if one.test == test])],
        [
            Figure(
                "confidence",
                f"Histograms: probabilities of the tokens chosen by {', '.join(systems)}, a panel each, on the most, "
                f"medium and least frequent third of {', '.join(tests)}. The tables hold means, medians and peaks.",
                (1 + 3.8 * len(systems), 0.8 + 2.4 * len(tests)),
                partial(paint_confidence, measured=measured),
            )
        ],
        [_record(one) for one in measured],
        {"bins": bins, "distributions": [one.to_json() for one in measured]},
    )


def _tables(measured: Sequence[Confidence]) -> List[Table]:
    hypotheses, references = [], []
    for one in measured:
        name = f"{one.system}, {one.part}"
        best, told = one.chosen, one.forced
        values = (best.mean, best.median, best.peak)
        hypotheses.append((name, f"{best.tokens:,}", *("" if value is None else f"{value:.3f}" for value in values)))
        means = (told.accuracy, told.confidence, told.probability)
        numbers = (*(f"{value:.3f}" for value in means), f"{told.entropy:.2f}", f"{100 * told.ece:.1f}%")
        references.append((name, f"{told.tokens:,}", *numbers))
    test = measured[0].test
    header = ("", "tokens", "accuracy", "confidence", "reference", "entropy", "ECE")
    return [
        Table(f"{test}, probabilities of hypothesis tokens", ("", "tokens", "mean", "median", "peak"), hypotheses),
        Table(f"{test}, teacher forcing", header, references),
    ]


def _record(one: Confidence) -> Dict[str, Any]:
    record: Dict[str, Any] = {"test": one.test, "system": one.system, "part": one.part}
    for kind in ("chosen", "forced"):
        values = vars(getattr(one, kind)).items()
        record.update({f"{kind}_{name}": value for name, value in values if not isinstance(value, list)})
    return record


def paint_confidence(figure: Any, measured: Sequence[Confidence]) -> None:
    """Histograms of hypothesis tokens, a row per test set and a panel per system, all with the same axes."""
    tests, systems = (list(dict.fromkeys(getattr(one, name) for one in measured)) for name in ("test", "system"))
    edges = [number / HISTOGRAM_BINS for number in range(HISTOGRAM_BINS + 1)]
    panels = figure.subplots(len(tests), len(systems), sharex=True, sharey=True, squeeze=False)
    for axes, (test, system) in zip(panels.flat, product(tests, systems)):
        for one in measured:
            if (one.test, one.system) == (test, system) and one.part != WHOLE:
                percent = [100 * share for share in one.chosen.histogram]
                axes.stairs(percent, edges, color=_PART_COLORS[one.part], linewidth=1.8, label=one.part)
        axes.set_title(f"{system}, {test}", fontsize=10)
        axes.set_xlim(0, 1)
        axes.set_xlabel("probability of the hypothesis token")
        axes.set_ylabel("tokens (%)")
        axes.label_outer()
        plain(axes)
    legend_above(figure, "frequency of the source tokens")


ANALYSIS = ConfidenceAnalysis()

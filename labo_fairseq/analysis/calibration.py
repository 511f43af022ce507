"""Whether a model is right as often as it says: as trained, by its posterior, and with a fitted temperature.

Token by token under teacher forcing: likelihood, calibration errors, reliability. Sentence by sentence: how well the
mean probability of a translation's tokens ranks translations by their chrF.
"""

import math
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from ..cli_types import whole
from ..data.types import Pair
from ..errors import UserError
from ..evaluation.metrics import Texts, Translation, find_metric, sentence_statistics
from ..evaluation.runs import Run, runs_by_name
from ..files import read_lines
from ..reporting.figure import Figure, legend_above, marker_style, plain
from ..reporting.table import Table
from .base import Analysis, AnalysisResult
from .hypotheses import TRANSLATIONS, VALID, HeldOut, Hypotheses, decode, held_out
from .teacher_forcing import TeacherForcedModel, reference_pairs

#: logits (N, K) → logarithms of probabilities (N, K)
Probabilities = Callable[[Tensor], Tensor]

MODEL, POSTERIOR, TEMPERATURE = "model", "posterior", "temperature"

_ROWS = 1024  # of logits at a time: temporaries stay small beside a batch
_STEPS, _COLDEST, _HOTTEST = 30, 0.05, 20.0  # of the fitted temperature


class Predictions(NamedTuple):
    """One entry per target token, float64 but for ``correct``."""

    probability: np.ndarray  # p_k of the reference token
    confidence: np.ndarray  # the largest probability
    correct: np.ndarray  # bool: whether the reference token has it
    entropy: np.ndarray  # H(p), in bits


def predictions(logits: Tensor, target: Tensor) -> Predictions:
    """Predictions of ``softmax(logits)`` for ``target``; sums are taken in float32, in float64 for float64.

    Args:
        logits: (N, K), on any device; logarithms of probabilities are such logits. ``-inf`` masks a class.
        target: (N,), int64, class indices.
    """
    return join([_predictions(*rows) for rows in zip(logits.split(_ROWS), target.split(_ROWS))])


def join(parts: Iterable[Predictions]) -> Predictions:
    """Several :class:`Predictions` as one, in their order."""
    return Predictions(*(np.concatenate(arrays) for arrays in zip(*parts)))


def _predictions(logits: Tensor, target: Tensor) -> Predictions:
    p = _probabilities(logits)
    confidence, best = p.max(dim=-1)
    probability = p.gather(-1, target[:, None]).squeeze(-1)
    entropy = torch.special.entr(p).sum(dim=-1) / np.log(2)
    values = [column.double().cpu().numpy() for column in (probability, confidence, entropy)]
    return Predictions(values[0], values[1], best.eq(target).cpu().numpy(), values[2])


def _probabilities(logits: Tensor) -> Tensor:
    return logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32).softmax(dim=-1)


# calibration errors of the most probable token


@dataclass(frozen=True)
class Bin:
    """Predictions whose confidence lies above ``lower`` and not above ``upper``."""

    lower: float
    upper: float
    tokens: int
    confidence: Optional[float]  # mean; None in an empty bin
    accuracy: Optional[float]  # share of right predictions; None in an empty bin


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> List[Bin]:
    """Predictions in ``bins`` intervals of equal width, ((m−1)/M, m/M] (Guo et al., 2017, section 2).

    Args:
        confidence: (N,), the probability of the most probable token.
        correct: (N,), bool, whether that token is the reference token.

    Raises:
        UserError: fewer than one bin.
    """
    check_bins(bins)
    edges = np.arange(bins + 1) / bins
    # rounding may make a sum of probabilities a little larger than 1
    number = np.searchsorted(edges[1:-1], confidence, side="left")
    diagram = []
    for m in range(bins):
        inside = number == m
        tokens = int(inside.sum())
        means = (float(values[inside].mean()) if tokens else None for values in (confidence, correct))
        diagram.append(Bin(float(edges[m]), float(edges[m + 1]), tokens, *means))
    return diagram


def check_bins(bins: int) -> None:
    """UserError where ``bins`` is not a number of intervals."""
    if bins < 1:
        raise UserError(f"the number of bins must be an integer ≥ 1, got {bins}")


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """ECE = Σ_m |B_m|/n · |acc(B_m) − conf(B_m)| (Guo et al., 2017, Eq. 3), in [0, 1]; 0 without predictions."""
    tokens = sum(one.tokens for one in bins)
    gaps = (
        one.tokens * abs(one.accuracy - one.confidence)
        for one in bins
        if one.accuracy is not None and one.confidence is not None
    )
    return sum(gaps) / max(tokens, 1)


def adaptive_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> float:
    """ECE in ``bins`` intervals that hold equally many predictions (Nguyen and O'Connor, 2015), in [0, 1].

    Where ``bins`` does not divide their number, the first intervals hold one more.
    """
    check_bins(bins)
    order = np.argsort(confidence, kind="stable")
    gaps = (abs(float((correct[rows] - confidence[rows]).sum())) for rows in np.array_split(order, bins))
    return sum(gaps) / max(len(order), 1)


class ClasswiseBins:
    """Sums for the calibration error of every class, of any number of predictions, a block at a time."""

    def __init__(self, classes: int, bins: int = 10) -> None:
        check_bins(bins)
        self.classes, self.bins, self.predictions = classes, bins, 0
        #: (K, bins): probabilities less right predictions
        self._gaps = np.zeros(classes * bins)

    def add(self, p: Tensor, target: Tensor) -> None:
        """Count predictions: probabilities (N, K) and the right classes (N,)."""
        self.predictions += len(target)
        edges = (torch.arange(1, self.bins, device=p.device) / self.bins).to(p.dtype)
        # at most bins − 1 classes of a token lie above the first interval; the sums of that are what is left
        rows, classes = (p > edges[0]).nonzero(as_tuple=True) if self.bins > 1 else (target[:0], target[:0])
        above = p[rows, classes]
        gaps = above.double() - classes.eq(target[rows]).double()
        places = classes * self.bins + torch.bucketize(above, edges)
        total = p.double().sum(dim=0) - torch.bincount(target, minlength=self.classes).double()
        rest = total - torch.bincount(classes, gaps, self.classes)
        self._gaps += torch.bincount(places, gaps, self.classes * self.bins).cpu().numpy()
        self._gaps[:: self.bins] += rest.cpu().numpy()

    @property
    def error(self) -> float:
        """Mean over the classes of their ECE (Kull et al., 2019, section 2), in [0, 1]."""
        return float(np.abs(self._gaps).sum()) / (self.classes * max(self.predictions, 1))


# temperature scaling


def fit_temperature(batches: Callable[[], Iterable[Tuple[Tensor, Tensor]]]) -> float:
    """The temperature T that makes the reference tokens most likely under ``softmax(z/T)`` (Guo et al., 2017).

    Newton's method on 1/T, in which the negative log-likelihood is convex.

    Args:
        batches: yields logits (N, K) and reference tokens (N,), the same in every call.

    Returns:
        A number from 0.05 to 20.
    """
    inverse = 1.0
    for _ in range(_STEPS):
        slope = curvature = 0.0
        for logits, target in batches():
            for block, right in zip(logits.split(_ROWS), target.split(_ROWS)):
                z = block.double()
                z = z - z.amax(dim=-1, keepdim=True)
                p = (inverse * z).softmax(dim=-1)
                truth = z.gather(-1, right[:, None]).squeeze(-1)
                truth = truth.masked_fill(truth.isinf(), 0)  # no temperature makes it possible
                z = z.masked_fill(p == 0, 0)  # 0 · −inf
                mean = (p * z).sum(dim=-1)
                slope += float((mean - truth).sum())
                curvature += float(((p * z * z).sum(dim=-1) - mean * mean).sum())
        if slope == 0:
            break
        newton = inverse - slope / curvature if curvature > 0 else math.copysign(math.inf, -slope)
        step = min(max(newton, inverse / 2), 2 * inverse)
        step = min(max(step, 1 / _HOTTEST), 1 / _COLDEST)
        converged = abs(step - inverse) <= 1e-5 * inverse
        inverse = step
        if converged:
            break
    return 1 / inverse


def at_temperature(temperature: float) -> Probabilities:
    """``log softmax(z/T)``."""

    def log_probabilities(logits: Tensor) -> Tensor:
        return (logits / temperature).log_softmax(dim=-1)

    return log_probabilities


# translations in the order of their probability


def rank_auroc(scores: np.ndarray, positive: np.ndarray) -> Optional[float]:
    """Probability that a ``positive`` item has the larger score, ties counted half; None where all are alike."""
    above, below = scores[positive], np.sort(scores[~positive])
    if not (len(above) and len(below)):
        return None
    wins = np.searchsorted(below, above, side="left") + np.searchsorted(below, above, side="right")
    return float(wins.sum() / (2 * len(above) * len(below)))


def pearson(one: np.ndarray, other: np.ndarray) -> Optional[float]:
    """Correlation coefficient; None where one of the two is constant."""
    if len(one) < 2 or not (np.ptp(one) and np.ptp(other)):
        return None
    return float(np.corrcoef(one, other)[0, 1])


def sentence_chrf(run: Run, test: HeldOut, lines: Sequence[str]) -> np.ndarray:
    """(sentences,): chrF of every translated sentence of a test set, in percent."""
    chrf = find_metric("chrf")
    assert chrf.decomposition is not None
    sources, references = (list(read_lines(run.data.raw(test.name, side))) for side in test.direction)
    rows = sentence_statistics(
        chrf, Translation(Texts(sources, lines, references)), run.data.scoring_for(test.direction[1])
    )
    return chrf.decomposition.corpus_score(rows)


@dataclass(frozen=True)
class Calibration:
    """One kind of probabilities of one system on one test set; means over reference tokens, over sentences below."""

    test: str
    system: str
    kind: str  # MODEL, POSTERIOR or TEMPERATURE
    temperature: Optional[float]  # of TEMPERATURE, fitted on the validation set
    tokens: int
    nll: float  # bits per token
    accuracy: float
    confidence: float
    ece: float
    adaptive_ece: float
    classwise_ece: float
    auroc: Optional[float]  # mean token probability against chrF above its median; None where all are alike
    pearson: Optional[float]  # of the same with chrF; None where one is constant
    reliability: List[Bin]

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)


class AnalysisInBins(Analysis):
    """An analysis with the option ``--bins`` of the expected calibration error."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--bins", type=whole(1, 1000), default=10, metavar="M", help="number of bins of the ECE")

    def options(self, args: Namespace) -> Dict[str, Any]:
        return {"bins": args.bins}


class CalibrationAnalysis(AnalysisInBins):
    """Calibration of p, of the posterior and of temperature scaling, of tokens and of sentences."""

    name = "calibration"
    summary = "likelihood and calibration: the model's p, its posterior, a fitted temperature"
    description = (
        "With the reference given token by token: negative log-likelihood, expected calibration error (with bins of "
        "equal width, of equal size, and per class) and reliability of the model's probabilities, of the posterior "
        "that inverts its training objective, and of temperature scaling fitted on the validation set. Of its own "
        "translations: how well their mean token probability ranks them by chrF."
    )

    def run(self, runs: Sequence[Run], folder: Path, **options: Any) -> AnalysisResult:
        """Options: ``bins`` of the calibration errors."""
        bins = options.get("bins", 10)
        check_bins(bins)
        measured: List[Calibration] = []
        for name, run in runs_by_name(runs).items():
            decoded = decode(run, held_out(run), folder / TRANSLATIONS)
            for direction in run.directions:
                model = TeacherForcedModel(run, direction)
                tests = [test for test in decoded if test.direction == direction]
                kinds, temperature = probabilities_of(run, model, tests[0], name)
                for test in tests:
                    measured += _measure(run, model, test, decoded[test], name, kinds, temperature, bins)
        order = [test.name for test in held_out(runs[0])]
        return calibration_result(sorted(measured, key=lambda one: order.index(one.test)), bins)


def probabilities_of(
    run: Run, model: TeacherForcedModel, valid: HeldOut, name: str
) -> Tuple[Dict[str, Probabilities], float]:
    """What is made of a model's logits, by kind; and the temperature that was fitted on the validation set."""
    assert valid.split == VALID
    pairs = reference_pairs(run, valid)
    passes = iter(range(1, _STEPS + 1))
    temperature = fit_temperature(lambda: model.batches(pairs, f"{name}, fit a temperature, pass {next(passes)}"))
    kinds: Dict[str, Probabilities] = {MODEL: at_temperature(1.0)}
    if model.log_posterior is not None:
        kinds[POSTERIOR] = model.log_posterior
    kinds[TEMPERATURE] = at_temperature(temperature)
    return kinds, temperature


def _measure(
    run: Run,
    model: TeacherForcedModel,
    test: HeldOut,
    hypotheses: Hypotheses,
    system: str,
    kinds: Dict[str, Probabilities],
    temperature: float,
    bins: int,
) -> List[Calibration]:
    """The calibration of every kind of probabilities on one test set."""
    classwise = {kind: ClasswiseBins(len(model.symbols), bins) for kind in kinds}

    def tell(logits: Tensor, target: Tensor) -> Dict[str, Predictions]:
        told = {}
        for kind, log_probabilities in kinds.items():
            blocks = []
            for block, right in zip(logits.split(_ROWS), target.split(_ROWS)):
                log_p = log_probabilities(block)
                blocks.append(_predictions(log_p, right))
                classwise[kind].add(_probabilities(log_p), right)
            told[kind] = join(blocks)
        return told

    references = model.map(reference_pairs(run, test), tell, f"{system}, {test.name}, references")
    means, chrf = _sentence_means(run, model, test, hypotheses, system, kinds)
    measured = []
    for kind in kinds:
        tokens = join(told[kind] for told in references)
        diagram = reliability(tokens.confidence, tokens.correct, bins)
        with np.errstate(divide="ignore"):
            nll = float(-np.log2(tokens.probability).mean())
        measured.append(
            Calibration(
                test=test.name,
                system=system,
                kind=kind,
                temperature=temperature if kind == TEMPERATURE else None,
                tokens=len(tokens.correct),
                nll=nll,
                accuracy=float(tokens.correct.mean()),
                confidence=float(tokens.confidence.mean()),
                ece=expected_calibration_error(diagram),
                adaptive_ece=adaptive_calibration_error(tokens.confidence, tokens.correct, bins),
                classwise_ece=classwise[kind].error,
                auroc=rank_auroc(means[kind], chrf > np.median(chrf)),
                pearson=pearson(means[kind], chrf),
                reliability=diagram,
            )
        )
    return measured


def _sentence_means(
    run: Run,
    model: TeacherForcedModel,
    test: HeldOut,
    hypotheses: Hypotheses,
    system: str,
    kinds: Dict[str, Probabilities],
) -> Tuple[Dict[str, np.ndarray], np.ndarray]:
    """By kind the mean probability (sentences,) of the tokens of each translation; chrF (sentences,)."""
    sources = read_lines(run.data.subwords(test.name, test.direction[0]))
    pairs: List[Pair] = list(zip(sources, hypotheses.subwords))

    def tell(logits: Tensor, target: Tensor) -> Dict[str, float]:
        return {kind: _predictions(of(logits), target).probability.mean() for kind, of in kinds.items()}

    told = model.map(pairs, tell, f"{system}, {test.name}, translations")
    means = {kind: np.array([sentence[kind] for sentence in told]) for kind in kinds}
    return means, sentence_chrf(run, test, hypotheses.lines)


def calibration_result(measured: Sequence[Calibration], bins: int) -> AnalysisResult:
    """Tables and reliability diagrams.

    Args:
        measured: by test set, then by system, then by kind.
        bins: of the calibration errors.
    """
    tests, systems = (list(dict.fromkeys(getattr(one, name) for one in measured)) for name in ("test", "system"))
    records = [
        {name: value for name, value in one.to_json().items() if not isinstance(value, list)} for one in measured
    ]
    return AnalysisResult(
        "calibration",
        "Calibration",
        "The reference given token by token. model: the probabilities as trained; posterior: the conditional "
        "distribution that is recovered from them by inverting the training objective, without data; temperature: "
        "softmax(z/T) with the T that fits the validation set best. NLL: negative log-likelihood in bits per token. "
        f"ECE: expected calibration error of the most probable token in {bins} bins of equal width; adaptive: in bins "
        "of equal size; classwise: mean over the vocabulary. Sentences: how well the mean probability of the tokens "
        "of a translation (beam 5) ranks translations by chrF, as the area under the ROC curve for the better half "
        "(AUROC) and as Pearson's correlation.",
        [_table(test, [one for one in measured if one.test == test]) for test in tests],
        [
            Figure(
                "calibration",
                f"Reliability diagrams: accuracy against confidence of {', '.join(systems)}, a panel each, on "
                f"{', '.join(tests)}, with one standard error; the diagonal is perfect calibration. The tables hold "
                "the calibration errors.",
                (1 + 3.2 * len(systems), 0.8 + 2.7 * len(tests)),
                partial(paint_reliability, measured=measured),
            )
        ],
        records,
        {"bins": bins, "diagrams": [one.to_json() for one in measured]},
    )


def _table(test: str, measured: Sequence[Calibration]) -> Table:
    header = ("", "tokens", "NLL", "ECE", "adaptive", "classwise", "AUROC", "Pearson")
    rows = []
    for one in measured:
        kind = f"T = {one.temperature:.3f}" if one.temperature is not None else one.kind
        errors = (f"{100 * error:.1f}%" for error in (one.ece, one.adaptive_ece))
        ranks = ("" if rank is None else f"{rank:.3f}" for rank in (one.auroc, one.pearson))
        classwise = f"{100 * one.classwise_ece:.4f}%"
        rows.append((f"{one.system}, {kind}", f"{one.tokens:,}", f"{one.nll:.3f}", *errors, classwise, *ranks))
    return Table(test, header, rows)


def paint_reliability(figure: Any, measured: Sequence[Calibration]) -> None:
    """Accuracy against confidence, a row per test set and a panel per system, one kind of dots per kind."""
    tests, systems = (list(dict.fromkeys(getattr(one, name) for one in measured)) for name in ("test", "system"))
    kinds = list(dict.fromkeys(one.kind for one in measured))
    panels = figure.subplots(len(tests), len(systems), sharex=True, sharey=True, squeeze=False)
    for axes, (test, system) in zip(panels.flat, product(tests, systems)):
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
        for one in (one for one in measured if (one.test, one.system) == (test, system)):
            full = [bin for bin in one.reliability if bin.accuracy is not None]
            accuracy, tokens = (np.array([getattr(bin, name) for bin in full]) for name in ("accuracy", "tokens"))
            errors = np.sqrt(accuracy * (1 - accuracy) / np.maximum(tokens, 1))
            options = {**marker_style(kinds.index(one.kind)), "markersize": 4, "linewidth": 1}
            axes.errorbar([bin.confidence for bin in full], accuracy, errors, label=one.kind, **options)
        axes.set_title(f"{system}, {test}", fontsize=10)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        axes.label_outer()
        plain(axes)
    legend_above(figure)


ANALYSIS = CalibrationAnalysis()

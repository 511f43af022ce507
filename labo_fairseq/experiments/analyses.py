"""The paper's section 5 for finished runs on the same data, the baseline first."""

import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

from ..analysis.base import Analysis
from ..analysis.calibration import check_bins
from ..analysis.confidence import WHOLE, Confidence, chosen, forced
from ..analysis.findings import confidence_analysis, frequency_analysis, labels_analysis
from ..analysis.frequency import PARTS, count_tokens, frequency_scores, score_parts, thirds
from ..analysis.hypotheses import HeldOut, decode, held_out, runs_by_name
from ..analysis.labels import Labelling, label_positions
from ..analysis.predictions import join
from ..analysis.teacher_forcing import TeacherForcedModel
from ..data.encode import to_subwords
from ..data.types import Pair
from ..files import locked, read_lines
from ..reporting.figure import NO_FIGURE
from .run import Run

_LABO = ("labo", "labo_label_smoothed_cross_entropy")
_TRANSLATIONS = "translations"


def analyse_frequency(runs: Sequence[Run], folder: Path) -> Analysis:
    """BLEU on the thirds of the validation and test sets by Frequency Score: Table 4.

    Args:
        folder: where translations are kept that the runs do not have.

    Raises:
        UserError: see :func:`runs_by_name`, :func:`decode` and :func:`thirds`.
    """
    systems, data = runs_by_name(runs), runs[0].data
    counts = training_counts(runs[0])
    lowercase = data.scoring.lowercase
    scored = []
    for test in held_out(runs[0]):
        lines = {name: decode(run, test, folder / _TRANSLATIONS).lines for name, run in systems.items()}
        references = list(read_lines(data.raw(test.name, test.direction[1])))
        scored += score_parts(test.name, _frequency_scores(runs[0], test, counts), lines, references, lowercase)
    return frequency_analysis(scored)


def analyse_confidence(runs: Sequence[Run], folder: Path, bins: int = 10) -> Analysis:
    """Probabilities of chosen tokens on the same thirds, figure 2; calibration under teacher forcing.

    Args:
        folder: where translations are kept that the runs do not have.
        bins: of the expected calibration error.

    Raises:
        UserError: see :func:`runs_by_name`, :func:`decode`, :func:`thirds` and :func:`check_bins`.
    """
    check_bins(bins)
    systems, tests = runs_by_name(runs), held_out(runs[0])
    counts = training_counts(runs[0])
    models = {
        (name, direction): TeacherForcedModel(run, direction)
        for name, run in systems.items()
        for direction in run.directions
    }
    found: List[Confidence] = []
    for test in tests:
        scores = _frequency_scores(runs[0], test, counts)
        parts = {**dict(zip(PARTS, thirds(scores))), WHOLE: list(range(len(scores)))}
        for name, run in systems.items():
            probabilities = decode(run, test, folder / _TRANSLATIONS).probabilities
            pairs = list(zip(*(read_lines(run.data.subwords(test.name, side)) for side in test.direction)))
            told = models[name, test.direction].predictions(pairs, f"{name}, {test.name}")
            for part, indices in parts.items():
                best = chosen([probabilities[index] for index in indices])
                right = forced(join(told[index] for index in indices), bins)
                found.append(Confidence(test.name, name, part, best, right))
    return confidence_analysis(found, bins)


def analyse_labels(
    runs: Sequence[Run], direction: Pair, source: str, target: str, given: Dict[str, Any], top: int = 5
) -> Analysis:
    """The label of every token of ``target`` as the translation of ``source``, by each run's model: figure 1c.

    Args:
        given: options of :class:`Labelling` in place of those that the runs were trained with.
        top: how many tokens of P* to name.

    Raises:
        UserError: see :func:`runs_by_name`, :func:`to_subwords` and :func:`label_positions`.
    """
    found, captions = {}, {}
    for name, run in runs_by_name(runs).items():
        labelling = replace(labelling_of(run), **given)
        pair = tuple(to_subwords(run.data, language, text) for language, text in zip(direction, (source, target)))
        model = TeacherForcedModel(run, direction)
        ((logits, right),) = model.logits([pair])
        found[name] = label_positions(logits.cpu(), right.cpu(), model.symbols, labelling, top)
        captions[name] = f"{name}: {labelling}"
    return labels_analysis(source, target, found, captions)


@contextmanager
def workplace(runs: Sequence[Run], folder: Optional[Path]) -> Iterator[Path]:
    """``folder``, or the folder ``analysis`` of the last run, for this process alone.

    Raises:
        UserError: another process is at work in it.
    """
    place = folder or runs[-1].folder / "analysis"
    with locked(place):
        yield place


def publish(analysis: Analysis, folder: Path) -> None:
    """Write the files of ``analysis`` into ``folder``, print its tables and where everything is."""
    paths = analysis.write(folder)
    for table in analysis.tables:
        print(f"\n{table.text()}")
    print()
    for path in paths:
        print(f"{path.suffix[1:]:<10}{path}")
    if len(paths) < len(analysis.pictures) + 3:
        print(NO_FIGURE, file=sys.stderr)


def labelling_of(run: Run) -> Labelling:
    """The options that ``run`` was trained with, and the defaults of those that it has not."""
    criterion = run.config["criterion"]
    trained = {name: criterion[name] for name in ("tau", "alpha", "rho") if name in criterion}
    labelling = Labelling(**trained) if criterion["_name"] in _LABO else Labelling()
    return replace(labelling, epsilon=criterion.get("label_smoothing", labelling.epsilon))


def training_counts(run: Run) -> Counter:
    """How often each subword occurs in the text that ``run`` was trained on, both sides together."""
    splits = [(run.data.split("train", *direction), direction) for direction in run.directions]
    return count_tokens(run.data.subwords(split, side) for split, direction in splits for side in direction)


def _frequency_scores(run: Run, test: HeldOut, counts: Counter) -> List[float]:
    return frequency_scores(read_lines(run.data.subwords(test.name, test.direction[0])), counts)

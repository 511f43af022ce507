"""Sentences by how frequent their tokens are in the training text: section 5.1 of the paper.

A token is what the model reads, a subword. The script that Raunak et al. (2020) published with the score reads the
counts out of fairseq's joined dictionary: of subwords, in both languages of the training text. So do these functions.
Subwords also leave no token without a count, and every corpus has them.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

from ..data.types import Scoring
from ..errors import UserError
from ..evaluation.metrics import Texts, Translation, find_metric, score, sentence_statistics
from ..evaluation.runs import Run, runs_by_name
from ..evaluation.significance import resample, spread
from ..files import read_lines
from ..reporting.figure import Figure, legend_above, marker_style, plain
from ..reporting.table import Table
from .base import Analysis, AnalysisResult
from .hypotheses import TRANSLATIONS, HeldOut, decode, held_out

PARTS = ("most", "medium", "least")


@dataclass(frozen=True)
class PartScore:
    """BLEU of one system on one part of a test set, in percent."""

    test: str
    part: str
    sentences: int
    frequency: float  # mean Frequency Score of the part's sentences
    system: str
    bleu: float
    interval: float  # half the width of the middle 95 % of bootstrap samples
    delta: Optional[float]  # to the first system; None: this is the first
    signature: str

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)


def training_counts(run: Run) -> Counter:
    """How often each subword occurs in the text that ``run`` was trained on, both sides together."""
    splits = [(run.data.split("train", *direction), direction) for direction in run.directions]
    return count_tokens(run.data.subwords(split, side) for split, direction in splits for side in direction)


def source_scores(run: Run, test: HeldOut, counts: Mapping[str, int]) -> List[float]:
    """The Frequency Score of every source sentence of a test set."""
    return frequency_scores(read_lines(run.data.subwords(test.name, test.direction[0])), counts)


def count_tokens(texts: Iterable[Path]) -> Counter:
    """How often each token occurs in files of tokens separated by spaces."""
    counts: Counter = Counter()
    for text in texts:
        for line in read_lines(text):
            counts.update(line.split())
    return counts


def frequency_scores(lines: Iterable[str], counts: Mapping[str, int]) -> List[float]:
    """F(x) = Σ f(x_i) / N of every line (Eq. 18); 0 where a line has no token."""
    sentences = (line.split() for line in lines)
    return [sum(counts.get(token, 0) for token in tokens) / max(len(tokens), 1) for tokens in sentences]


def thirds(scores: Sequence[float]) -> List[List[int]]:
    """Indices of the sentences in the order of decreasing score, cut into three.

    Equal scores keep their order. Where three does not divide the number, the first parts are longer by one.

    Raises:
        UserError: fewer than three sentences.
    """
    if len(scores) < len(PARTS):
        raise UserError(f"{len(scores)} sentences cannot be cut into {len(PARTS)} parts")
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    size, longer = divmod(len(order), len(PARTS))
    cuts = [part * size + min(part, longer) for part in range(len(PARTS) + 1)]
    return [order[start:end] for start, end in zip(cuts, cuts[1:])]


def score_parts(
    test: str,
    scores: Sequence[float],
    systems: Mapping[str, Sequence[str]],
    references: Sequence[str],
    scoring: Optional[Scoring] = None,
) -> List[PartScore]:
    """BLEU of every system on each third of a test set, by system, then by part.

    Args:
        scores: Frequency Score of every source sentence.
        systems: name → detokenized translations, the baseline first.
        references: one per sentence.
        scoring: how translations of the corpus are scored.

    Raises:
        UserError: numbers of sentences that differ, or fewer than three.
    """
    for name, lines in {"the references": references, **systems}.items():
        if len(lines) != len(scores):
            raise UserError(f"{test}: {name} has {len(lines)} lines, but there are {len(scores)} source sentences")
    bleu, scored = find_metric("bleu"), []
    first: Dict[str, float] = {}
    for system, hypotheses in systems.items():
        for part, indices in zip(PARTS, thirds(scores)):
            ours, right = ([lines[index] for index in indices] for lines in (hypotheses, references))
            # BLEU does not read the source
            translation = Translation(Texts(right, ours, right))
            value = score(bleu, translation, scoring)
            _, interval = spread(resample(bleu, [sentence_statistics(bleu, translation, scoring)])[0])
            frequency = sum(scores[index] for index in indices) / len(indices)
            delta = value.value - first[part] if part in first else None
            first.setdefault(part, value.value)
            numbers = (len(indices), frequency, system, value.value, interval, delta)
            scored.append(PartScore(test, part, *numbers, value.signature))
    return scored


def frequency_result(scored: Sequence[PartScore]) -> AnalysisResult:
    """The paper's Table 4, of what :func:`score_parts` found on one test set or more."""
    tests, systems = (list(dict.fromkeys(getattr(part, name) for part in scored)) for name in ("test", "system"))
    figure = Figure(
        "frequency",
        f"Dots: BLEU with its 95 % bootstrap interval on the most, medium and least frequent third of "
        f"{', '.join(tests)}, by {', '.join(systems)}. The tables hold the numbers.",
        (1.5 + 2.9 * len(tests), 3.4),
        lambda canvas: paint_frequency(canvas, scored),
    )
    return AnalysisResult(
        "frequency",
        "BLEU by the frequency of the source tokens",
        "Source sentences in the order of their Frequency Score (Eq. 18), the mean count of their subwords in the "
        "training text, cut into three equal parts from the most to the least frequent; Δ is the difference from "
        f"{systems[0]}. Error bars: middle 95 % of bootstrap samples. Beam 5; BLEU by sacreBLEU, "
        f"{scored[0].signature}.",
        [_table_4([part for part in scored if part.test == test]) for test in tests],
        [figure],
        [part.to_json() for part in scored],
        {},
    )


def _table_4(scored: Sequence[PartScore]) -> Table:
    systems = list(dict.fromkeys(part.system for part in scored))
    rows = []
    for system in systems:
        of_system = [part for part in scored if part.system == system]
        rows.append((system, *(f"{part.bleu:.2f}" for part in of_system)))
        if of_system[0].delta is not None:
            name = "Δ" if len(systems) == 2 else f"Δ {system}"
            rows.append((name, *(f"{part.delta:+.2f}" for part in of_system)))
    parts = scored[: len(PARTS)]
    rows.append(("sentences", *(str(part.sentences) for part in parts)))
    rows.append(("mean Frequency Score", *(f"{part.frequency:,.0f}" for part in parts)))
    return Table(f"{scored[0].test}, BLEU", ("", *(part.capitalize() for part in PARTS)), rows)


def paint_frequency(figure: Any, scores: Sequence[PartScore]) -> None:
    """BLEU by part, a panel per test set and a dot per system."""
    tests, systems = (list(dict.fromkeys(getattr(part, name) for part in scores)) for name in ("test", "system"))
    width = 0.6 / len(systems)
    for axes, test in zip(figure.subplots(1, len(tests), sharey=True, squeeze=False).flat, tests):
        for number, system in enumerate(systems):
            parts = [part for part in scores if (part.test, part.system) == (test, system)]
            places = [part + (number - (len(systems) - 1) / 2) * width for part in range(len(PARTS))]
            style = {**marker_style(number), "linestyle": "", "markersize": 6, "elinewidth": 1}
            values, intervals = ([getattr(part, name) for part in parts] for name in ("bleu", "interval"))
            axes.errorbar(places, values, intervals, label=system, **style)
            for place, value in zip(places, values):
                axes.annotate(f"{value:.1f}", (place, value), (5, 0), textcoords="offset points", va="center", size=7)
        axes.set_title(test, fontsize=10)
        axes.set_xticks(range(len(PARTS)), PARTS)
        axes.set_xlabel("frequency of the source tokens")
        plain(axes)
        axes.margins(x=0.15, y=0.15)
    figure.axes[0].set_ylabel("BLEU")
    legend_above(figure)


class FrequencyAnalysis(Analysis):
    """BLEU on the thirds of the validation and test sets by Frequency Score: Table 4."""

    name = "frequency"
    summary = "BLEU on frequent and on rare text (Table 4)"
    description = (
        "Cut the validation and test sets into three equal parts by the Frequency Score of their source sentences, the "
        "mean count of a sentence's subwords in the training text, and score each run on each part. What a run has not "
        "translated yet, such as the validation set, is translated with beam 5 and kept for the next time."
    )

    def run(self, runs: Sequence[Run], folder: Path, **options: Any) -> AnalysisResult:
        systems, data = runs_by_name(runs), runs[0].data
        counts = training_counts(runs[0])
        scored: List[PartScore] = []
        tests = held_out(runs[0])
        decoded = {name: decode(run, tests, folder / TRANSLATIONS) for name, run in systems.items()}
        for test in tests:
            lines = {name: hypotheses[test].lines for name, hypotheses in decoded.items()}
            references = list(read_lines(data.raw(test.name, test.direction[1])))
            scoring = data.scoring_for(test.direction[1])
            scored += score_parts(test.name, source_scores(runs[0], test, counts), lines, references, scoring)
        return frequency_result(scored)


ANALYSIS = FrequencyAnalysis()

"""The analyses as tables and pictures, of numbers that are known already."""

from functools import partial
from typing import Any, Dict, List, Sequence

from ..reporting.figure import Figure
from ..reporting.table import Table
from .base import Analysis
from .confidence import Confidence
from .frequency import PARTS, PartScore
from .labels import Position, label_table
from .plots import label_rows, paint_confidence, paint_frequency, paint_labels, paint_reliability


def frequency_analysis(scored: Sequence[PartScore]) -> Analysis:
    """The paper's Table 4, of what :func:`score_parts` found on one test set or more."""
    tests, systems = (list(dict.fromkeys(getattr(each, name) for each in scored)) for name in ("test", "system"))
    picture = Figure(
        "frequency",
        f"Bars: BLEU on the most, medium and least frequent third of {', '.join(tests)}, by {', '.join(systems)}. "
        "The tables hold the numbers.",
        (1.5 + 2.9 * len(tests), 3.4),
        lambda figure: paint_frequency(figure, scored),
    )
    return Analysis(
        "frequency",
        "BLEU by the frequency of the source tokens",
        "Source sentences in the order of their Frequency Score (Eq. 18), the mean count of their subwords in the "
        "training text, cut into three equal parts from the most to the least frequent; Δ is the difference from "
        f"{systems[0]}. Beam 5; BLEU by sacreBLEU, {scored[0].signature}.",
        [_table_4([each for each in scored if each.test == test]) for test in tests],
        [picture],
        [each.to_json() for each in scored],
        {},
    )


def confidence_analysis(found: Sequence[Confidence], bins: int) -> Analysis:
    """Figure 2 and calibration; ``bins`` as in :func:`forced`."""
    tests, systems = (list(dict.fromkeys(getattr(each, name) for each in found)) for name in ("test", "system"))
    across = 1 + 3.8 * len(systems)
    return Analysis(
        "confidence",
        "Confidence and calibration",
        "Chosen tokens: the probability that a model gave each token of its best hypothesis, beam 5, the end of the "
        "sentence included; the peak is the middle of the histogram's highest bar. Teacher forcing, the right "
        "translation given token by token: how often the most probable token is the right one (accuracy), its "
        "probability (confidence), that of the right token (right), the entropy of the prediction in bits, and the "
        f"expected calibration error (ECE) in {bins} bins.",
        [table for test in tests for table in _confidence_tables([each for each in found if each.test == test])],
        [
            Figure(
                "confidence",
                f"Histograms: probabilities of the tokens chosen by {', '.join(systems)}, a panel each, on the most, "
                f"medium and least frequent third of {', '.join(tests)}. The tables hold means, medians and peaks.",
                (across, 0.8 + 2.4 * len(tests)),
                lambda figure: paint_confidence(figure, found),
            ),
            Figure(
                "calibration",
                f"Reliability diagrams: accuracy by confidence of {', '.join(systems)}, a panel each, on "
                f"{', '.join(tests)}. The tables hold the calibration errors.",
                (across, 0.5 + 2.7 * len(tests)),
                lambda figure: paint_reliability(figure, found),
            ),
        ],
        [_confidence_record(each) for each in found],
        {"bins": bins, "distributions": [each.to_json() for each in found]},
    )


def labels_analysis(source: str, target: str, found: Dict[str, List[Position]], captions: Dict[str, str]) -> Analysis:
    """Figure 1c.

    Args:
        found: system → what :func:`label_positions` says of ``target``.
        captions: system → its name and the options of its labels.
    """
    pictures = [
        Figure(
            "labels" if len(found) == 1 else f"labels-{number}",
            "Bars: what one-hot, uniform label smoothing and LABO give the probable tokens at each of the "
            f"{len(positions)} tokens of the translation, by {system}. The table holds the numbers.",
            (10.5, 0.9 + 2.1 * label_rows(positions)),
            partial(paint_labels, title=captions[system], positions=positions),
        )
        for number, (system, positions) in enumerate(found.items(), 1)
    ]
    return Analysis(
        "labels",
        "Labels of one translation",
        f"“{source}” → “{target}”. α is the smoothing mass and H the entropy of the prediction, in bits, at each "
        "token; what the model (p), the smoothing distribution (P*), LABO's label and uniform label smoothing (LS) "
        "give the token itself; and the tokens that P* finds most probable there.",
        [label_table(positions, captions[system]) for system, positions in found.items()],
        pictures,
        [record for system, positions in found.items() for record in _label_records(system, positions)],
        {"source": source, "target": target, "labels": captions},
    )


def _table_4(scored: Sequence[PartScore]) -> Table:
    systems = list(dict.fromkeys(each.system for each in scored))
    rows = []
    for system in systems:
        of_system = [each for each in scored if each.system == system]
        rows.append((system, *(f"{each.bleu:.2f}" for each in of_system)))
        if of_system[0].delta is not None:
            name = "Δ" if len(systems) == 2 else f"Δ {system}"
            rows.append((name, *(f"{each.delta:+.2f}" for each in of_system)))
    parts = scored[: len(PARTS)]
    rows.append(("sentences", *(str(each.sentences) for each in parts)))
    rows.append(("mean Frequency Score", *(f"{each.frequency:,.0f}" for each in parts)))
    return Table(f"{scored[0].test}, BLEU", ("", *(part.capitalize() for part in PARTS)), rows)


def _confidence_tables(found: Sequence[Confidence]) -> List[Table]:
    first, second = [], []
    for each in found:
        name = f"{each.system}, {each.part}"
        best, told = each.chosen, each.forced
        values = (best.mean, best.median, best.peak)
        first.append((name, f"{best.tokens:,}", *("" if value is None else f"{value:.3f}" for value in values)))
        means = (told.accuracy, told.confidence, told.probability)
        numbers = (*(f"{value:.3f}" for value in means), f"{told.entropy:.2f}", f"{100 * told.ece:.1f}%")
        second.append((name, f"{told.tokens:,}", *numbers))
    test = found[0].test
    return [
        Table(f"{test}, probabilities of chosen tokens", ("", "tokens", "mean", "median", "peak"), first),
        Table(f"{test}, teacher forcing", ("", "tokens", "accuracy", "confidence", "right", "entropy", "ECE"), second),
    ]


def _confidence_record(each: Confidence) -> Dict[str, Any]:
    record: Dict[str, Any] = {"test": each.test, "system": each.system, "part": each.part}
    for kind in ("chosen", "forced"):
        values = vars(getattr(each, kind)).items()
        record.update({f"{kind}_{name}": value for name, value in values if not isinstance(value, list)})
    return record


def _label_records(system: str, positions: Sequence[Position]) -> List[Dict[str, Any]]:
    """A row a position and token: the right one, rank 0, then those of P*."""
    return [
        {
            **{"system": system, "position": number, "alpha": each.alpha, "entropy": each.entropy},
            **{"probability": each.probability, "rank": rank, **vars(share)},
        }
        for number, each in enumerate(positions, 1)
        for rank, share in enumerate([each.right, *each.top])
    ]

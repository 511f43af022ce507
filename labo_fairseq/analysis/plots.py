"""Pictures of the analyses: each function paints on a matplotlib Figure and knows nothing of runs."""

from itertools import product
from typing import Any, Dict, Sequence, Tuple

from ..reporting.figure import PALETTE
from .confidence import HISTOGRAM_BINS, WHOLE, Confidence
from .frequency import PARTS, PartScore
from .labels import Position

_PANELS = 4  # a row, of labels
_LABEL_COLOURS = {"one-hot": "#999999", "label smoothing": PALETTE[0], "LABO": PALETTE[1]}
#: of the parts; each is seen on white and on black
_PART_COLOURS = dict(zip(PARTS, ("#7A6FCC", "#2A9D8F", "#E08E1B")))


def paint_frequency(figure: Any, scores: Sequence[PartScore]) -> None:
    """BLEU by part, a panel a test set and a bar a system."""
    tests, systems = (list(dict.fromkeys(getattr(each, name) for each in scores)) for name in ("test", "system"))
    width = 0.8 / len(systems)
    for axes, test in zip(figure.subplots(1, len(tests), sharey=True, squeeze=False).flat, tests):
        for number, system in enumerate(systems):
            values = [each.bleu for each in scores if (each.test, each.system) == (test, system)]
            places = [part + (number - (len(systems) - 1) / 2) * width for part in range(len(PARTS))]
            bars = axes.bar(places, values, 0.92 * width, color=PALETTE[number % len(PALETTE)], label=system)
            axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
        axes.set_title(test, fontsize=10)
        axes.set_xticks(range(len(PARTS)), PARTS)
        axes.set_xlabel("frequency of the source tokens")
        _plain(axes)
        axes.margins(y=0.12)
    figure.axes[0].set_ylabel("BLEU")
    _legend_above(figure)


def paint_confidence(figure: Any, found: Sequence[Confidence]) -> None:
    """Figure 2: histograms of chosen tokens, a row a test set and a panel a system, all with the same axes."""
    edges = [number / HISTOGRAM_BINS for number in range(HISTOGRAM_BINS + 1)]
    grid = _grid(figure, found)
    for (test, system), axes in grid.items():
        for each in found:
            if (each.test, each.system) == (test, system) and each.part != WHOLE:
                percent = [100 * share for share in each.chosen.histogram]
                axes.stairs(percent, edges, color=_PART_COLOURS[each.part], linewidth=1.8, label=each.part)
        axes.set_title(f"{system}, {test}", fontsize=10)
    _label_outside(grid, "probability of the chosen token", "tokens (%)")
    _legend_above(figure, "frequency of the source tokens")


def paint_reliability(figure: Any, found: Sequence[Confidence]) -> None:
    """Accuracy by confidence on whole test sets, a row a test set and a panel a system."""
    grid = _grid(figure, found)
    systems = list(dict.fromkeys(each.system for each in found))
    for each in found:
        if each.part == WHOLE:
            axes = grid[each.test, each.system]
            bins = [each for each in each.forced.reliability if each.tokens]
            colour = PALETTE[systems.index(each.system) % len(PALETTE)]
            axes.bar(
                [(each.lower + each.upper) / 2 for each in bins],
                [each.accuracy for each in bins],
                0.94 / len(each.forced.reliability),
                color=colour,
            )
            axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
            axes.set_title(f"{each.system}, {each.test}: ECE {100 * each.forced.ece:.1f} %", fontsize=10)
            axes.set_ylim(0, 1)
    _label_outside(grid, "confidence", "accuracy")


def label_rows(positions: Sequence[Position]) -> int:
    """How many rows of panels :func:`paint_labels` makes."""
    return -(-len(positions) // _PANELS)


def paint_labels(figure: Any, title: str, positions: Sequence[Position]) -> None:
    """Figure 1c: a panel a position, with what three labels give the tokens that are probable there."""
    panels = list(figure.subplots(label_rows(positions), _PANELS, sharex=True, squeeze=False).flat)
    for axes, (number, each) in zip(panels, enumerate(positions, 1)):
        shares = {share.token: share for share in [each.right, *each.top]}
        for row, share in enumerate(shares.values()):
            one_hot = float(share.token == each.right.token)
            axes.text(share.label + 0.02, row + 0.28, f"{share.label:.3f}", va="center", fontsize=6.5)
            for bar, (name, value) in enumerate(zip(_LABEL_COLOURS, (one_hot, share.uniform, share.label))):
                place = row + (bar - 1) * 0.28
                axes.barh(place, value, 0.26, color=_LABEL_COLOURS[name], label=name if row == 0 else None)
        # a dollar sign would begin a formula
        axes.set_yticks(range(len(shares)), [token.replace("$", r"\$") for token in shares], fontsize=8)
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.invert_yaxis()
        axes.set_title(f"{number}: α {each.alpha:.2f}, H {each.entropy:.1f} bits", fontsize=9, loc="left")
        axes.set_xlim(0, 1)
        _plain(axes, "x")
    for axes in panels[len(positions) :]:
        axes.remove()
    _legend_above(figure, title)


def _grid(figure: Any, found: Sequence[Confidence]) -> Dict[Tuple[str, str], Any]:
    """(test set, system) → axes from 0 to 1."""
    tests, systems = (list(dict.fromkeys(getattr(each, name) for each in found)) for name in ("test", "system"))
    panels = figure.subplots(len(tests), len(systems), sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat:
        axes.set_xlim(0, 1)
        _plain(axes)
    return dict(zip(product(tests, systems), panels.flat))


def _label_outside(grid: Dict[Tuple[str, str], Any], below: str, left: str) -> None:
    for axes in grid.values():
        axes.set_xlabel(below)
        axes.set_ylabel(left)
        axes.label_outer()


def _plain(axes: Any, grid: str = "y") -> None:
    axes.grid(axis=grid, alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend_above(figure: Any, title: str = "") -> None:
    handles, names = figure.axes[0].get_legend_handles_labels()
    options = {"loc": "outside upper center", "ncols": min(len(names), 4), "frameon": False, "fontsize": 9}
    figure.legend(handles, names, title=title, title_fontsize=9, **options)

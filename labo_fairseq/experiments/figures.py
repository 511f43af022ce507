"""Pictures of a grid of runs."""

from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from ..evaluation.curves import read_curves
from ..reporting.figure import PALETTE, save_png
from .cells import Cell
from .grid import Job

_LINES = (*PALETTE, "#F0E442", "#000000")  # the same palette, whole
_BASELINE, _OTHERS = "grey", PALETTE[0]


def draw_scores(path: Path, cells: Sequence[Cell], baseline: str, metric: str) -> bool:
    """A panel a test set: a bar a method, an error bar of one standard deviation, a point a seed.

    The bars do not begin at zero, since BLEU has no meaningful one. False where matplotlib is not installed.
    """
    columns = list(dict.fromkeys(cell.column for cell in cells))

    def paint(figure: Any) -> None:
        for axes, column in zip(_axes(figure, len(columns)), columns):
            mine = [cell for cell in cells if cell.column == column]
            for height, cell in enumerate(mine):
                colour = _BASELINE if cell.variant == baseline else _OTHERS
                axes.barh(height, cell.mean, xerr=cell.std, color=colour, alpha=0.75, capsize=3)
                axes.plot(list(cell.scores.values()), [height] * len(cell.scores), "k.", markersize=4)
            values = [value for cell in mine for value in cell.scores.values()]
            room = max(1.0, max(values) - min(values))
            axes.set_xlim(max(0.0, min(values) - room), max(values) + 0.3 * room)
            axes.set_yticks(range(len(mine)), [cell.variant for cell in mine], fontsize=8)
            axes.invert_yaxis()
            axes.set_title(f"{column.corpus} {column.direction} {column.test}: {metric}", fontsize=9)
            axes.grid(axis="x", alpha=0.3)

    return save_png(path, _size(len(columns), 0.8 + 0.35 * len({cell.variant for cell in cells})), paint)


def draw_curves(path: Path, logs: Dict[Job, Path]) -> bool:
    """A panel a direction: validation BLEU, or where it was not measured the negative log-likelihood, by update.

    False where matplotlib is not installed.
    """
    groups: Dict[Tuple[str, str], List[Job]] = {}
    for job in logs:
        groups.setdefault((job.corpus, job.direction), []).append(job)

    def paint(figure: Any) -> None:
        for axes, ((corpus, direction), jobs) in zip(_axes(figure, len(groups)), groups.items()):
            variants = list(dict.fromkeys(job.variant for job in jobs))
            first = {job.variant: job for job in reversed(jobs)}
            for job in jobs:
                curves = read_curves(logs[job])["valid"]
                name, label = ("bleu", "BLEU") if "bleu" in curves else ("nll_loss", "NLL (bits)")
                points = sorted(curves.get(name, {}).items())
                colour = _LINES[variants.index(job.variant) % len(_LINES)]
                of_variant = job.variant if first[job.variant] == job else None
                axes.plot(*zip(*points), color=colour, alpha=0.8, linewidth=1.2, label=of_variant)
                axes.set_ylabel(f"validation {label}", fontsize=8)
            axes.set_title(f"{corpus} {direction}", fontsize=9)
            axes.set_xlabel("updates", fontsize=8)
            axes.grid(alpha=0.3)
            axes.legend(fontsize=7)

    return save_png(path, _size(len(groups), 3.2), paint)


def _size(panels: int, height: float) -> Tuple[float, float]:
    """Inches of a figure with so many panels of that height, two in a row."""
    return 6.0 * min(panels, 2), height * -(-panels // 2)


def _axes(figure: Any, panels: int) -> List[Any]:
    axes = list(figure.subplots(-(-panels // 2), min(panels, 2), squeeze=False).flat)
    for unused in axes[panels:]:
        unused.set_visible(False)
    return axes[:panels]

"""Pictures of a grid of runs."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..evaluation.curves import read_curves
from ..files import whole_file
from .cells import Cell
from .grid import Job


def draw_scores(path: Path, cells: Sequence[Cell], baseline: str, metric: str) -> bool:
    """A panel a test set: a bar a method, an error bar of one standard deviation, a point a seed.

    False where matplotlib is not installed.
    """
    columns = list(dict.fromkeys(cell.column for cell in cells))
    panels = _figure(len(columns), 0.8 + 0.35 * len({cell.variant for cell in cells}))
    if panels is None:
        return False
    figure, axes = panels
    for ax, column in zip(axes, columns):
        mine = [cell for cell in cells if cell.column == column]
        for height, cell in enumerate(mine):
            color = "C7" if cell.variant == baseline else "C0"
            ax.barh(height, cell.mean, xerr=cell.std, color=color, alpha=0.75, capsize=3)
            ax.plot(list(cell.scores.values()), [height] * len(cell.scores), "k.", markersize=4)
        values = [value for cell in mine for value in cell.scores.values()]
        room = max(1.0, max(values) - min(values))
        ax.set_xlim(max(0.0, min(values) - room), max(values) + 0.3 * room)
        ax.set_yticks(range(len(mine)), [cell.variant for cell in mine], fontsize=8)
        ax.invert_yaxis()
        ax.set_title(f"{column.corpus} {column.direction} {column.test}: {metric}", fontsize=9)
        ax.grid(axis="x", alpha=0.3)
    with whole_file(path) as part:
        figure.savefig(part, dpi=120, format="png")
    return True


def draw_curves(path: Path, logs: Dict[Job, Path]) -> bool:
    """A panel a direction: validation BLEU, or where it was not measured the negative log-likelihood, by update.

    False where matplotlib is not installed.
    """
    groups: Dict[Tuple[str, str], List[Job]] = {}
    for job in logs:
        groups.setdefault((job.corpus, job.direction), []).append(job)
    panels = _figure(len(groups), 3.2)
    if panels is None:
        return False
    figure, axes = panels
    for ax, ((corpus, direction), jobs) in zip(axes, groups.items()):
        variants = list(dict.fromkeys(job.variant for job in jobs))
        for job in jobs:
            curves = read_curves(logs[job])["valid"]
            name = "bleu" if "bleu" in curves else "nll_loss"
            number = variants.index(job.variant)
            label = job.variant if job == next(each for each in jobs if each.variant == job.variant) else None
            points = sorted(curves.get(name, {}).items())
            ax.plot(*zip(*points), color=f"C{number % 10}", alpha=0.8, linewidth=1.2, label=label)
            ax.set_ylabel("validation " + {"bleu": "BLEU", "nll_loss": "NLL (bits)"}[name], fontsize=8)
        ax.set_title(f"{corpus} {direction}", fontsize=9)
        ax.set_xlabel("updates", fontsize=8)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7)
    with whole_file(path) as part:
        figure.savefig(part, dpi=120, format="png")
    return True


def _figure(panels: int, height: float) -> Optional[Tuple[Any, Any]]:
    """A figure with so many axes, two in a row; None where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    columns = min(panels, 2)
    rows = -(-panels // columns)
    figure = Figure(figsize=(6 * columns, height * rows), constrained_layout=True)
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[panels:]:
        unused.set_visible(False)
    return figure, axes

"""fairseq's JSON log of a training: read as curves, and drawn."""

import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ..files import read_lines
from ..losses.blockwise import Quantity
from .figure import line_style, plain, save_png

Curves = Dict[str, Dict[str, Dict[int, float]]]

#: what is drawn of every run: title of the panel and the names whose training and validation values it shows
_PANELS = (("negative log-likelihood (bits)", ["nll_loss"]), ("objective (bits)", ["loss"]))

#: what is drawn of several runs, if logged: title of the panel, training or validation, name
_COMPARED = (
    ("validation: negative log-likelihood (bits)", "valid", "nll_loss"),
    ("validation: BLEU by fairseq", "valid", "bleu"),
    ("training: negative log-likelihood (bits)", "train", "nll_loss"),
)


def parse_record(line: str) -> Optional[Tuple[str, Dict[str, Any]]]:
    """``("train_inner" | "train" | "valid", statistics)`` of a line of ``--log-format json``, else None."""
    parts = line.split(" | ", 3)
    if len(parts) != 4 or parts[2] not in ("train_inner", "train", "valid"):
        return None
    try:
        return parts[2], {name: _number(value) for name, value in json.loads(parts[3]).items()}
    except ValueError:  # a line that a kill cut short
        return None


def read_curves(log: Path) -> Curves:
    """``{"train" | "valid": {name: {update: value}}}``; where a run was resumed, its last word counts."""
    curves: Curves = {"train": {}, "valid": {}}
    for line in read_lines(log):
        record = parse_record(line)
        if record is None or record[0] == "train":
            continue
        kind, prefix = ("valid", "valid_") if record[0] == "valid" else ("train", "")
        update = int(record[1][prefix + "num_updates"])
        for name, value in record[1].items():
            curves[kind].setdefault(name[len(prefix) :], {})[update] = value
    return curves


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def plot_training(
    log: Path,
    figure_path: Path,
    title: str,
    warmup_ends: Optional[int] = None,
    quantities: Optional[Dict[str, Quantity]] = None,
) -> bool:
    """Draw the curves of ``log`` into ``figure_path`` (PNG); False where matplotlib is not installed.

    Args:
        quantities: name in the log → what the method logs in addition to loss and nll; those of one unit share a panel.
    """
    curves = read_curves(log)
    known = quantities or {}
    of_unit: Dict[str, List[str]] = {}
    for name, quantity in known.items():
        of_unit.setdefault(quantity.unit, []).append(name)
    labels = {unit: ", ".join(known[name].label for name in names) for unit, names in of_unit.items()}
    panels = [*_PANELS, *((_title(labels[unit], unit), names) for unit, names in of_unit.items())]

    def paint(figure: Any) -> None:
        figure.suptitle(title)
        for axes, (label, names) in zip(figure.subplots(-(-len(panels) // 2), 2).flat, panels):
            for name in names:
                for kind, style in (("train", "-"), ("valid", "o--")):
                    points = sorted(curves[kind].get(name, {}).items())
                    if points:
                        axes.plot(*zip(*points), style, markersize=4, label=f"{kind} {name}")
            if warmup_ends:
                axes.axvline(warmup_ends, color="grey", linewidth=0.8, linestyle=":", label="smoothing warm-up ends")
            axes.set_title(label, fontsize=10)
            axes.set_xlabel("updates")
            plain(axes)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=8)

    return save_png(figure_path, (10, 7), paint)


def _title(label: str, unit: str) -> str:
    return f"{label} ({unit})" if unit else label


def compared_panels(runs: Dict[str, Curves], quantities: Dict[str, Quantity]) -> List[Tuple[str, str, str]]:
    """Title, kind and name of the curves that at least one of ``runs`` has.

    Args:
        quantities: name in the log → what the methods of these runs log in addition to loss and nll.
    """
    own = ((f"training: {_title(*quantity)}", "train", name) for name, quantity in quantities.items())
    return [panel for panel in (*_COMPARED, *own) if any(curves[panel[1]].get(panel[2]) for curves in runs.values())]


def paint_compared(
    figure: Any, runs: Dict[str, Curves], warmups: Dict[str, Optional[int]], panels: List[Tuple[str, str, str]]
) -> None:
    """Curves of several runs, two panels a row.

    Args:
        warmups: run → the update with which its smoothing warm-up ends, if it has one.
        panels: those of :func:`compared_panels`.
    """
    grid = figure.subplots(-(-len(panels) // 2), 2, squeeze=False)
    for axes, (title, kind, name) in zip(grid.flat, panels):
        for number, (run, curves) in enumerate(runs.items()):
            points, style = sorted(curves[kind].get(name, {}).items()), line_style(number)
            if points:
                axes.plot(*zip(*points), marker="o" if kind == "valid" else "", markersize=3.5, **style)
            if warmups[run]:
                axes.axvline(warmups[run], color=style["color"], linewidth=1, linestyle=":")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("updates")
        plain(axes)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    lines = [figure.axes[0].plot([], [], **line_style(number))[0] for number in range(len(runs))]
    figure.legend(lines, list(runs), loc="outside upper center", ncols=min(len(runs), 4), frameon=False, fontsize=9)

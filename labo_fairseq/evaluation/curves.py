"""Training curves out of fairseq's JSON log."""

import json
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from ..files import read_lines, whole_file

#: what is drawn, if logged: title of the panel and the names whose training and validation values it shows
_PANELS = (
    ("negative log-likelihood (bits)", ("nll_loss",)),
    ("objective (bits)", ("loss",)),
    ("smoothing mass α, P*(target)", ("alpha", "p_star")),
    ("entropy of p (bits)", ("entropy",)),
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


def read_curves(log: Path) -> Dict[str, Dict[str, Dict[int, float]]]:
    """``{"train" | "valid": {name: {update: value}}}``; where a run was resumed, its last word counts."""
    curves: Dict[str, Dict[str, Dict[int, float]]] = {"train": {}, "valid": {}}
    for line in read_lines(log):
        record = parse_record(line)
        if record is None or record[0] == "train":
            continue
        kind, prefix = ("valid", "valid_") if record[0] == "valid" else ("train", "")
        update = int(record[1][prefix + "num_updates"])
        for name, value in record[1].items():
            curves[kind].setdefault(name[len(prefix) :], {})[update] = value
    return curves


def plot_training(log: Path, picture: Path, title: str, warmup_ends: Optional[int] = None) -> bool:
    """Draw the curves of ``log`` into ``picture`` (PNG); False where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    curves = read_curves(log)
    figure = Figure(figsize=(10, 7), constrained_layout=True)
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, (label, names) in zip(figure.subplots(2, 2).flat, _PANELS):
        for name in names:
            for kind, style in (("train", "-"), ("valid", "o--")):
                points = sorted(curves[kind].get(name, {}).items())
                if points:
                    axes.plot(*zip(*points), style, markersize=4, label=f"{kind} {name}")
        if warmup_ends:
            axes.axvline(warmup_ends, color="grey", linewidth=0.8, linestyle=":", label="smoothing warm-up ends")
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("updates")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    with whole_file(picture) as part:
        figure.savefig(part, dpi=120, format="png")
    return True


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value

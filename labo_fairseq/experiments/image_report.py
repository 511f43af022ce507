"""A page on finished runs on the same images: scores, their significance, calibration, cost, labels of hard images."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch

from ..analysis.calibration import Bin, expected_calibration_error, predictions, reliability
from ..analysis.labels import Labeling, Position, label_positions
from ..evaluation.runs import names_of
from ..files import atomic_write, make_folder, write_json
from ..reporting.figure import PALETTE, Figure, legend_above, line_style, plain, save_png
from ..reporting.html import Paragraph, Section, page
from ..reporting.table import Table
from .image_result import BINS, TEST, ImageResult, ImageRun
from .image_scores import ACCURACY, IMAGE_METRICS, Cost, base_of, compare_on, has_validation, refuse_other_images

_PANELS = 3  # of the reliability figure in a row
_COLUMNS, _CLASSES = 4, 3  # hard images in a row; classes of each whose labels are shown
_COLORS = {"label smoothing": PALETTE[0], "LABO": PALETTE[1]}


class HardImage(NamedTuple):
    """A training image that the network gets wrong, and what it would be trained with."""

    pixels: np.ndarray  # (C, H, W), uint8
    position: Position  # the labels that it was given


def write_image_report(runs: Sequence[ImageRun], folder: Path) -> Tuple[Path, List[Table]]:
    """Write ``report.html``, its numbers as JSON and its figures as PNG files into ``folder``.

    Returns:
        The path of the page, and its tables.

    Raises:
        UserError: the runs were trained on different images.
    """
    first = runs[0]
    refuse_other_images(runs)
    systems = dict(zip(names_of([run.folder for run in runs]), runs))
    results = {name: run.read_result() for name, run in systems.items()}
    p_values = significance(list(systems.values()))
    figures = [_reliability_figure(systems), _curves_figure(systems)]
    figures += [_hard_figure(name, run, results[name].classes) for name, run in systems.items()]
    scores, signatures = _scores(results, p_values)
    calibration, costs = _calibration(results), _costs({name: run.method for name, run in systems.items()}, results)
    sections = [
        Section("scores", "Scores", [scores, signatures]),
        Section("calibration", "Calibration", [calibration, figures[0]]),
        Section("training", "Training", [figures[1], costs]),
        Section("hard-images", "Hard images", [_HARD_TEXT, *figures[2:]]),
    ]
    baseline = next(iter(systems))
    networks = ", ".join(dict.fromkeys(run.config["network"]["name"] for run in runs))
    title = f"{first.config['dataset']}, {networks}"
    make_folder(folder)
    path = folder / "report.html"
    text = f"Runs on the same images; {baseline} is the baseline."
    with atomic_write(path) as part:
        part.write_text(page(title, text, sections), encoding="utf-8")
    write_json(folder / "report.json", {name: {**results[name].to_json(), "p": p_values[name]} for name in systems})
    for figure in figures:
        save_png(folder / f"{figure.name}.png", figure.size, figure.paint)
    return path, [scores, calibration, costs]


_HARD_TEXT = Paragraph(
    "The training images of which the finished network is most wrong, with the labels that the objective gives them: "
    "the true class, in bold, and the classes that the smoothing distribution P* finds most probable. Bars: what label "
    "smoothing (ε 0.1) and LABO give a class, LABO with the options of the run, or its defaults where the run was "
    "trained with another method. α: LABO's smoothing mass; p: the network's probability of the true class."
)


def significance(runs: Sequence[ImageRun]) -> Dict[str, Optional[float]]:
    """Name of a run → p that its difference in accuracy from the first run is chance; None for the first.

    Paired bootstrap over the test images, see :func:`compare_on`.
    """
    return {name: line.p for name, line in zip(names_of([run.folder for run in runs]), compare_on(runs, ACCURACY))}


def _scores(results: Dict[str, ImageResult], p_values: Dict[str, Optional[float]]) -> Tuple[Table, Paragraph]:
    """The table of scores, and their signatures."""
    rows = []
    for name, result in results.items():
        p = p_values[name]
        accuracy, *others = (_shown(result, score) for score in (ACCURACY, "NLL", "ECE"))
        rows.append((name, accuracy, "" if p is None else f"{p:.3f}", *others, str(result.evaluation.epoch)))
    scores = next(iter(results.values())).scores
    signatures = (f"{name}: {score.signature}" for name, score in scores.items() if "temperature" not in name)
    table = Table("Test images", ("", ACCURACY, "p", "NLL", "ECE", "epoch"), rows)
    return table, Paragraph("; ".join(signatures), faint=True)


def _shown(result: ImageResult, name: str) -> str:
    """A score as tables show it; nothing where the run has none of that name."""
    return IMAGE_METRICS[name].text([result.scores[name].value] if name in result.scores else [])


def _calibration(results: Dict[str, ImageResult]) -> Table:
    """NLL and ECE of all kinds, and the temperature T that was fitted on the validation images."""
    kinds = ("", " (posterior)", " (temperature)")
    names = [f"{score}{kind}" for kind in kinds for score in ("NLL", "ECE")]
    names = [name for name in names if any(name in result.scores for result in results.values())]
    rows = []
    for run, result in results.items():
        temperature = result.evaluation.temperature
        values = (_shown(result, name) for name in names)
        rows.append((run, *values, "" if temperature is None else f"{temperature:.3f}"))
    return Table("Likelihood and calibration errors", ("", *names, "T"), rows)


def _costs(methods: Dict[str, str], results: Dict[str, ImageResult]) -> Table:
    """What every run took.

    Args:
        methods: run → what it was trained with.
    """
    base = base_of(methods, next(iter(results)))
    header = ("", "s per epoch", "relative", "MiB", "relative", "weights", "device")
    trainings = {name: result.training for name, result in results.items()}
    reference = Cost.of([trainings[base]])
    rows = [
        (name, *Cost.of([training]).cells(reference), f"{training.parameters:,}", training.device)
        for name, training in trainings.items()
    ]
    return Table(f"Cost, relative to {base}", header, rows)


def _reliability_figure(systems: Dict[str, ImageRun]) -> Figure:
    diagrams = {}
    for name, run in systems.items():
        predicted = predictions(*run.logits(TEST))
        diagrams[name] = reliability(predicted.confidence, predicted.correct, BINS)
    return Figure(
        "reliability",
        "Accuracy by confidence on the test images, one panel per run; the table holds the calibration errors.",
        (3.6 * min(len(systems), _PANELS) + 0.4, 3.9 * -(-len(systems) // _PANELS)),
        partial(paint_reliability, diagrams=diagrams),
    )


def paint_reliability(figure: Any, diagrams: Dict[str, List[Bin]]) -> None:
    """A panel per run: a dot per bin, as large as the bin has images, and the diagonal."""
    columns = min(len(diagrams), _PANELS)
    panels = figure.subplots(-(-len(diagrams) // columns), columns, sharex=True, sharey=True, squeeze=False)
    for number, (axes, (name, bins)) in enumerate(zip(panels.flat, diagrams.items())):
        filled = [one for one in bins if one.tokens]
        total = sum(one.tokens for one in filled)
        color = PALETTE[number % len(PALETTE)]
        axes.plot([0, 1], [0, 1], color="#666666", linewidth=1, linestyle=":")
        places = [one.confidence for one in filled], [one.accuracy for one in filled]
        axes.plot(*places, color=color, linewidth=1)
        sizes = [12 + 180 * math.sqrt(one.tokens / total) for one in filled]
        axes.scatter(*places, sizes, color=color, alpha=0.7)
        axes.set_title(f"{name}\nECE {100 * expected_calibration_error(bins):.1f} %", fontsize=10)
        # room for half of the largest dot
        axes.set_xlim(-0.02, 1.06)
        axes.set_ylim(-0.04, 1.06)
        axes.set_aspect("equal")
        plain(axes)
    for axes in panels.flat[len(diagrams) :]:
        axes.remove()
    for number, axes in enumerate(figure.axes):
        if number + columns >= len(figure.axes):
            axes.set_xlabel("confidence")
            axes.tick_params(labelbottom=True)
        if number % columns == 0:
            axes.set_ylabel("accuracy")


def _curves_figure(systems: Dict[str, ImageRun]) -> Figure:
    curves = {
        name: [json.loads(line) for line in run.log.read_text(encoding="utf-8").splitlines()]
        for name, run in systems.items()
    }
    # all were trained on the same images
    images = "validation" if has_validation(next(iter(curves.values()))) else "training"
    return Figure(
        "curves",
        f"Accuracy and negative log-likelihood on {images} images by epoch, a line per run.",
        (8.0, 3.4),
        partial(paint_curves, curves=curves),
    )


def paint_curves(figure: Any, curves: Dict[str, List[Dict[str, Any]]]) -> None:
    """Accuracy and negative log-likelihood on validation images, or on training images where there are none."""
    for axes, (key, otherwise, title) in zip(
        figure.subplots(1, 2),
        [
            ("valid_accuracy", "train_accuracy", "accuracy (%)"),
            ("valid_nll", "train_loss", "negative log-likelihood (nats)"),
        ],
    ):
        for number, (name, records) in enumerate(curves.items()):
            split = "validation" if key in records[0] else "training"
            values = [record.get(key, record[otherwise]) for record in records]
            epochs = [record["epoch"] for record in records]
            axes.plot(epochs, values, marker="o", markersize=3.5, label=name, **line_style(number))
            axes.set_title(f"{split} {title}", fontsize=10)
        if key == "valid_nll":
            axes.set_yscale("log")  # the first epochs may be a hundred times as bad as the last
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        plain(axes)
    legend_above(figure)


def hard_images(run: ImageRun, classes: Sequence[str]) -> List[HardImage]:
    """The hardest training images of ``run`` with the labels of its own LABO, or of LABO's defaults."""
    criterion = run.config["criterion"]
    trained = {name: criterion[name] for name in ("tau", "alpha", "rho") if criterion["name"] == "labo"}
    with np.load(run.folder / "hard_images.npz") as saved:
        logits, labels, pixels = (saved[name] for name in ("logits", "labels", "pixels"))
    positions = label_positions(
        torch.from_numpy(logits),
        torch.from_numpy(labels),
        list(classes),
        Labeling(**trained),
        top=min(_CLASSES, len(classes)),
    )
    return [HardImage(*pair) for pair in zip(pixels, positions)]


def _hard_figure(name: str, run: ImageRun, classes: Sequence[str]) -> Figure:
    images = hard_images(run, classes)
    rows = -(-len(images) // _COLUMNS)
    return Figure(
        f"hard-images-{name.replace('/', '-')}",
        f"The {len(images)} hardest training images of {name}, each beside the labels of its most probable classes.",
        (11.0, 0.6 + 1.5 * rows),
        partial(paint_hard_images, title=name, images=images),
    )


def paint_hard_images(figure: Any, title: str, images: Sequence[HardImage]) -> None:
    """An image, and beside it what label smoothing and LABO give its true and its most probable classes."""
    rows = -(-len(images) // _COLUMNS)
    grid = figure.subplots(rows, 2 * _COLUMNS, squeeze=False, width_ratios=[1, 1.6] * _COLUMNS)
    panels = grid.reshape(-1, 2)
    # drawn first, so that its legend is the figure's
    for (axes, bars), (pixels, position) in zip(panels, images):
        gray = pixels.shape[0] == 1
        axes.imshow(pixels[0] if gray else pixels.transpose(1, 2, 0), cmap="gray" if gray else None)
        axes.set_axis_off()
        shares = {share.token: share for share in [position.right, *position.top]}
        for row, share in enumerate(shares.values()):
            for bar, (label, value) in enumerate(zip(_COLORS, (share.uniform, share.label))):
                bars.barh(row + (bar - 0.5) * 0.4, value, 0.38, color=_COLORS[label], label=None if row else label)
        bars.set_yticks(range(len(shares)), [token.replace("$", r"\$") for token in shares], fontsize=8)
        bars.get_yticklabels()[0].set_fontweight("bold")
        bars.invert_yaxis()
        bars.set_xlim(0, 1)
        bars.tick_params(axis="x", labelsize=7)
        bars.set_title(f"α {position.alpha:.2f}, p {position.probability:.3f}", fontsize=8, loc="left")
        plain(bars, "x")
    for axes, bars in panels[len(images) :]:
        axes.remove()
        bars.remove()
    handles, names = panels[0][1].get_legend_handles_labels()
    figure.legend(handles, names, title=title, loc="outside upper center", ncols=2, frameon=False, fontsize=9)

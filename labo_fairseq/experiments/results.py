"""What a grid of runs shows, as tables like the paper's Table 1 and 2."""

import csv
import io
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import UserError
from ..evaluation.significance import paired_p
from ..evaluation.training_log import read_curves
from ..files import read_lines, whole_file, write_json
from ..reporting.figure import PALETTE, save_png
from ..reporting.table import Table
from .grid import Grid, Job
from .run import Run, load_run
from .scheduler import result_of

BLEU = "BLEU"
_LINES = (*PALETTE, "#F0E442", "#000000")  # the same palette, whole
_BASELINE, _OTHERS = "grey", PALETTE[0]


class Column(NamedTuple):
    """A test set."""

    corpus: str
    direction: str  # of the translation, which in a multilingual model is not that of the run
    test: str


@dataclass(frozen=True)
class Cell:
    """One method on one test set."""

    variant: str
    column: Column
    scores: Dict[int, float]  # by seed
    delta: Optional[float]  # of the mean over the seeds that the baseline has too; None: this is the baseline
    p: Optional[float]  # of paired_p, for BLEU
    signature: str

    @property
    def mean(self) -> float:
        return statistics.mean(self.scores.values())

    @property
    def std(self) -> Optional[float]:
        """Of a sample; None for one seed."""
        return statistics.stdev(self.scores.values()) if len(self.scores) > 1 else None


class _Finished(NamedTuple):
    run: Run
    result: Dict[str, Any]


def write_report(grid: Grid, root: Path, folder: Path, metric: str = BLEU) -> List[Path]:
    """Tables and pictures of the runs that are finished, into ``folder``; the files written.

    Args:
        root: the folder that the runs lie below.
        metric: name of a score as the runs' results call it; p belongs to BLEU alone.

    Raises:
        UserError: no run is finished, or none has such a score.
    """
    finished = _finished(grid, root)
    if not finished:
        raise UserError(f"no run of {grid.name} below {root} is finished")
    cells = compare_cells(grid, finished, metric)
    paths = [folder / name for name in ("table.md", "table.csv", "scores.json")]
    for path, text in zip(paths, (markdown(grid, cells, metric, len(finished)), to_csv(cells))):
        with whole_file(path) as part:
            part.write_text(text, encoding="utf-8")
    write_json(paths[2], [{**asdict(cell), "mean": cell.mean, "std": cell.std} for cell in cells])
    pictures = [folder / "scores.png", folder / "curves.png"]
    if draw_scores(pictures[0], cells, grid.baseline, metric):
        draw_curves(pictures[1], {job: each.run.log for job, each in finished.items()})
        paths += pictures
    return paths


def compare_cells(grid: Grid, finished: Dict[Job, _Finished], metric: str) -> List[Cell]:
    """All cells, by test set and then in the order of the grid's methods."""
    by_place: Dict[Tuple[Column, str], Dict[int, Tuple[_Finished, Dict[str, Any]]]] = {}
    for job, each in finished.items():
        for column, score in _scores(job, each, metric):
            by_place.setdefault((column, job.variant), {})[job.seed] = each, score
    if not by_place:
        names = {
            score["name"]
            for each in finished.values()
            for s in each.result["evaluation"]["tests"].values()
            for score in s
        }
        raise UserError(f"no run has a score {metric!r}: choose from {', '.join(sorted(names))}")
    variants = list(dict.fromkeys(job.variant for job in grid.jobs))
    columns = list(dict.fromkeys(column for column, _ in by_place))
    cells = []
    for column in columns:
        base = by_place.get((column, grid.baseline), {})
        for variant in variants:
            mine = by_place.get((column, variant))
            if not mine:
                continue
            scores = {seed: score["value"] for seed, (_, score) in sorted(mine.items())}
            shared = sorted(set(mine) & set(base)) if variant != grid.baseline else []
            delta = p = None
            if shared:
                delta = statistics.mean(scores[seed] - base[seed][1]["value"] for seed in shared)
                if metric == BLEU:
                    p = _p(column, *([runs[seed][0].run for seed in shared] for runs in (base, mine)))
            signature = next(iter(mine.values()))[1]["signature"]
            cells.append(Cell(variant, column, scores, delta, p, signature))
    return cells


def markdown(grid: Grid, cells: Sequence[Cell], metric: str, finished: int) -> str:
    """A table a corpus, with a column for each test set."""
    lines = [
        f"# {grid.title}",
        "",
        f"{metric}, mean ± standard deviation of a sample over the seeds (their number).",
        "",
    ]
    for corpus in dict.fromkeys(cell.column.corpus for cell in cells):
        mine = [cell for cell in cells if cell.column.corpus == corpus]
        columns = list(dict.fromkeys(cell.column for cell in mine))
        best = {column: max(cell.mean for cell in mine if cell.column == column) for column in columns}
        rows = []
        for variant in dict.fromkeys(cell.variant for cell in mine):
            row = {cell.column: cell for cell in mine if cell.variant == variant}
            rows.append((variant, *(_show(row[column], best[column]) if column in row else "–" for column in columns)))
        header = ("method", *(f"{column.direction} {column.test}" for column in columns))
        lines += [Table(corpus, header, rows).markdown(), ""]
    signatures = ", ".join(f"`{each}`" for each in dict.fromkeys(cell.signature for cell in cells))
    lines += [
        f"Bold: the best. Δ: to `{grid.baseline}` over the seeds that both have; p: paired bootstrap over those seeds,",
        f"two-sided, 1,000 samples. Signatures: {signatures}.",
        f"{finished} of {len(grid.jobs)} runs are finished.",
        "",
    ]
    return "\n".join(lines)


def to_csv(cells: Sequence[Cell]) -> str:
    """A line a cell."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["corpus", "direction", "test", "method", "seeds", "mean", "std", "delta", "p", "signature"])
    for cell in cells:
        numbers = (_round(value) for value in (cell.mean, cell.std, cell.delta, cell.p))
        writer.writerow([*cell.column, cell.variant, " ".join(map(str, cell.scores)), *numbers, cell.signature])
    return file.getvalue()


def _finished(grid: Grid, root: Path) -> Dict[Job, _Finished]:
    found = {}
    for job in grid.jobs:
        result = result_of(job, root)
        if result is not None:
            found[job] = _Finished(load_run(job.folder(root)), result)
    return found


def _scores(job: Job, finished: _Finished, metric: str) -> List[Tuple[Column, Dict[str, Any]]]:
    run, tests = finished.run, finished.result["evaluation"]["tests"]
    return [
        (Column(job.corpus, "-".join(direction), test), score)
        for direction in run.directions
        for test in run.data.tests
        for score in tests[run.data.split(test, *direction)]
        if score["name"] == metric
    ]


def _p(column: Column, baseline: List[Run], system: List[Run]) -> float:
    source, target = column.direction.split("-")
    data = baseline[0].data
    references = list(read_lines(data.raw(data.split(column.test, source, target), target)))
    translations = (
        [list(read_lines(run.translation(column.test, (source, target)))) for run in runs]
        for runs in (baseline, system)
    )
    return paired_p(*translations, references, data.scoring.lowercase)


def _show(cell: Cell, best: float) -> str:
    spread = "" if cell.std is None else f" ± {cell.std:.2f}"
    mean = f"**{cell.mean:.2f}**" if cell.mean == best else f"{cell.mean:.2f}"
    against = "" if cell.delta is None else f", Δ {cell.delta:+.2f}"
    p = "" if cell.p is None else f", p {cell.p:.3f}"
    return f"{mean}{spread} ({len(cell.scores)}){against}{p}"


def _round(value: Optional[float]) -> str:
    return "" if value is None else f"{value:.4f}"


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

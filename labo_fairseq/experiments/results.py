"""What a grid of runs shows: tables like the paper's Table 1 and 2, and figures."""

import csv
import io
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..errors import UserError
from ..evaluation.runs import RunFolder, RunResult
from ..evaluation.significance import (
    SAMPLES,
    Difference,
    paired_p,
    plus_minus,
    pool_tests,
    resample_sums,
    sample_std,
)
from ..files import atomic_write, write_json
from ..reporting.figure import PALETTE, line_style, plain, save_png
from ..reporting.table import Table
from .grid import Grid, Job, result_of
from .kinds import GridRun, Scored, Shown

#: in place of the name of a test set: the mean over those of a direction, but for one that is the validation set
POOLED = "mean of the test sets"

_BASELINE_COLOR, _COLOR = "#666666", PALETTE[0]


class Column(NamedTuple):
    """A test set."""

    corpus: str  # or the data set
    direction: str  # of the translation, which in a multilingual model is not that of the run; or the network
    test: str


@dataclass(frozen=True)
class Cell:
    """One method on one test set."""

    variant: str
    column: Column
    scores: Dict[int, float]  # by seed
    difference: Optional[Difference]  # from the baseline; None: this is it, or it has none of these seeds
    signature: str

    @property
    def mean(self) -> float:
        return statistics.mean(self.scores.values())

    @property
    def std(self) -> Optional[float]:
        """Of a sample; None for one seed."""
        return sample_std(self.scores.values())

    @property
    def against_baseline(self) -> Dict[str, Optional[float]]:
        """The numbers of :attr:`difference`, by their names in files."""
        of = self.difference
        if of is None:
            return {"delta": None, "delta_std": None, "p": None, "p_over_seeds": None}
        return {"delta": of.mean, "delta_std": of.std, "p": of.p, "p_over_seeds": of.p_over_seeds}

    def to_json(self) -> Dict[str, Any]:
        """Everything about it."""
        known = {"variant": self.variant, "column": self.column, "scores": self.scores}
        return {**known, **self.against_baseline, "signature": self.signature, "mean": self.mean, "std": self.std}


class FinishedJob(NamedTuple):
    """A job of a grid that is done."""

    job: Job
    run: RunFolder
    result: RunResult


def write_report(grid: Grid, root: Path, folder: Path, metric: str = "") -> List[Path]:
    """Tables and figures of the runs that are finished, into ``folder``; the files written.

    Args:
        root: the folder that the runs lie below.
        metric: key in the registry, or the name of a score in the runs' results; empty: BLEU; for images, accuracy.

    Raises:
        UserError: no run is finished, or none can be scored so.
    """
    shown = grid.kind.shown(metric)
    finished = finished_jobs(grid, root)
    if not finished:
        raise UserError(f"no run of {grid.name} below {root} is finished")
    cells = compare_cells(grid, finished, shown.key)
    if not cells:
        raise UserError(f"no finished run of {grid.name} has the score {shown.name!r}: {grid.kind.unscored}")
    paths = [folder / name for name in ("table.md", "table.csv", "scores.json")]
    for path, text in zip(paths, (markdown(grid, cells, shown, finished), to_csv(cells))):
        with atomic_write(path) as part:
            part.write_text(text, encoding="utf-8")
    write_json(paths[2], [cell.to_json() for cell in cells])
    figures = [folder / "scores.png", folder / "curves.png"]
    if draw_scores(figures[0], cells, grid.baseline, shown.name):
        draw_curves(figures[1], {done.job: done.run.log for done in finished})
        paths += figures
    return paths


def finished_jobs(grid: Grid, root: Path) -> List[FinishedJob]:
    """The runs of ``grid`` below ``root`` that are done, in its order."""
    results = ((job, result_of(job, root)) for job in grid.jobs)
    load = grid.kind.load
    return [FinishedJob(job, load(job.folder(root)), result) for job, result in results if result is not None]


def compare_cells(grid: Grid, finished: Sequence[FinishedJob], metric: str) -> List[Cell]:
    """All cells, by test set and then in the order of the grid's methods; after several test sets, their mean.

    Raises:
        UserError: see :func:`find_metric` and :func:`score`.
    """
    columns: Dict[Column, Dict[str, Dict[int, Scored]]] = {}
    pooled: Dict[Column, List[Column]] = {}  # that of the mean → those of its test sets
    for done in finished:
        for column, scored in _scores(done, metric).items():
            if column not in columns and scored.held_out:
                pooled.setdefault(column._replace(test=POOLED), []).append(column)
            columns.setdefault(column, {}).setdefault(done.job.variant, {})[done.job.seed] = scored
    variants = list(dict.fromkeys(job.variant for job in grid.jobs))
    measured = {column: _measured(scored) for column, scored in columns.items()}
    for mean, tests in pooled.items():
        if len(tests) > 1:
            measured[mean] = pooled_tests([measured[test] for test in tests])
    return [cell for column, one in measured.items() for cell in _column(column, one, variants, grid.baseline)]


class Measured(NamedTuple):
    """All runs on one test set, by (variant, seed)."""

    scores: Dict[Tuple[str, int], float]
    sampled: Dict[Tuple[str, int], np.ndarray]  # (1 + samples,) scores; empty where the score cannot be tested
    signatures: Dict[str, str]  # by variant


def _measured(scored: Dict[str, Dict[int, Scored]]) -> Measured:
    runs = {(variant, seed): one for variant, seeds in scored.items() for seed, one in sorted(seeds.items())}
    return Measured(
        {run: one.score.value for run, one in runs.items()},
        _resampled(scored),
        {variant: one.score.signature for (variant, _), one in runs.items()},
    )


def pooled_tests(tests: Sequence[Measured]) -> Measured:
    """The mean over test sets, of the runs that have them all."""
    runs = [run for run in tests[0].scores if all(run in test.scores for test in tests)]
    sampled = {}
    if all(test.sampled for test in tests):
        sampled = {run: pool_tests([test.sampled[run] for test in tests]) for run in runs}
    return Measured(
        {run: statistics.mean(test.scores[run] for test in tests) for run in runs}, sampled, tests[0].signatures
    )


def _column(column: Column, measured: Measured, variants: Sequence[str], baseline: str) -> List[Cell]:
    """The cells of one test set."""
    seeds: Dict[str, Dict[int, float]] = {}
    for (variant, seed), value in measured.scores.items():
        seeds.setdefault(variant, {})[seed] = value
    cells = []
    for variant in (variant for variant in variants if variant in seeds):
        mine, base = seeds[variant], seeds.get(baseline, {})
        shared = sorted(set(mine) & set(base)) if variant != baseline else []
        difference = None
        if shared:
            p = None
            if measured.sampled:
                p = paired_p(
                    *(np.stack([measured.sampled[name, seed] for seed in shared]) for name in (baseline, variant))
                )
            difference = Difference({seed: mine[seed] - base[seed] for seed in shared}, p)
        cells.append(Cell(variant, column, mine, difference, measured.signatures[variant]))
    return cells


def _resampled(scored: Dict[str, Dict[int, Scored]]) -> Dict[Tuple[str, int], np.ndarray]:
    """(variant, seed) → (1 + samples,) scores; empty where the score cannot be tested."""
    testable = {
        (variant, seed): (one.statistics, one.total)
        for variant, seeds in scored.items()
        for seed, one in seeds.items()
        if one.statistics is not None and one.total is not None
    }
    if not testable:
        return {}
    corpus_score = next(iter(testable.values()))[1]
    return dict(zip(testable, resample_sums(corpus_score, [rows for rows, _ in testable.values()])))


def _scores(done: FinishedJob, name: str) -> Dict[Column, Scored]:
    """One run on its test sets."""
    job = done.job
    scores = job.kind.scores(done.run, done.result, job.subject.direction, name)
    return {Column(job.corpus_name, *place): scored for place, scored in scores.items()}


def markdown(grid: Grid, cells: Sequence[Cell], shown: Shown, finished: Sequence[FinishedJob]) -> str:
    """A table per corpus, with a column for each test set; and what the kind of run adds."""
    best_of = min if shown.lower_is_better else max
    lines = [
        f"# {grid.title}",
        "",
        f"{shown.name}, mean ± standard deviation of a sample over the seeds (their number).",
        "",
    ]
    for corpus in dict.fromkeys(cell.column.corpus for cell in cells):
        mine = [cell for cell in cells if cell.column.corpus == corpus]
        columns = list(dict.fromkeys(cell.column for cell in mine))
        best = {column: best_of(cell.mean for cell in mine if cell.column == column) for column in columns}
        rows = []
        for variant in dict.fromkeys(cell.variant for cell in mine):
            row = {cell.column: cell for cell in mine if cell.variant == variant}
            rows.append(
                (
                    variant,
                    *(_show(row[column], best[column], shown.digits) if column in row else "–" for column in columns),
                )
            )
        header = ("method", *(f"{column.direction} {column.test}" for column in columns))
        lines += [Table(corpus, header, rows).markdown(), ""]
    signatures = ", ".join(f"`{signature}`" for signature in dict.fromkeys(cell.signature for cell in cells))
    lines += [
        f"Bold: the best. Δ: to `{grid.baseline}`, mean ± standard deviation over shared seeds. p, two-sided: paired",
        f"bootstrap, {SAMPLES:,} samples of each test set, given these seeds; over seeds: paired t-test, given",
        f"the test set. Signatures: {signatures}.",
        f"{len(finished)} of {len(grid.jobs)} runs are finished.",
        "",
    ]
    done = [
        GridRun(f"{job.corpus_name} {job.subject.direction}", job.variant, job.seed, run) for job, run, _ in finished
    ]
    for table in grid.kind.more_tables(done, grid.baseline):
        lines += [table.markdown(), ""]
    return "\n".join(lines)


def to_csv(cells: Sequence[Cell]) -> str:
    """A line per cell."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = ("delta", "delta_std", "p", "p_over_seeds")
    writer.writerow(["corpus", "direction", "test", "method", "seeds", "mean", "std", *names, "signature"])
    for cell in cells:
        against = cell.against_baseline
        numbers = (_round(value) for value in (cell.mean, cell.std, *(against[name] for name in names)))
        writer.writerow([*cell.column, cell.variant, " ".join(map(str, cell.scores)), *numbers, cell.signature])
    return file.getvalue()


def draw_scores(path: Path, cells: Sequence[Cell], baseline: str, metric: str) -> bool:
    """A panel per test set: a dot per method with one standard deviation, small dots for seeds, a line at the baseline.

    No length is read from zero, so that the axis need not begin there. False where matplotlib is not installed.
    """
    columns = list(dict.fromkeys(cell.column for cell in cells))

    def paint(figure: Any) -> None:
        for axes, column in zip(_axes(figure, len(columns)), columns):
            mine = [cell for cell in cells if cell.column == column]
            for height, cell in enumerate(mine):
                color = _BASELINE_COLOR if cell.variant == baseline else _COLOR
                axes.plot(list(cell.scores.values()), [height] * len(cell.scores), ".", color=color, alpha=0.5)
                axes.errorbar(cell.mean, height, xerr=cell.std, fmt="o", color=color, markersize=6, capsize=3)
                if cell.variant == baseline:
                    axes.axvline(cell.mean, color=color, linewidth=0.8, linestyle=":")
            axes.set_yticks(range(len(mine)), [cell.variant for cell in mine], fontsize=8)
            axes.set_ylim(len(mine) - 0.5, -0.5)
            axes.margins(x=0.1)
            axes.set_title(f"{column.corpus} {column.direction} {column.test}: {metric}", fontsize=9)
            plain(axes, "x")

    return save_png(path, _size(len(columns), 0.8 + 0.3 * len({cell.variant for cell in cells})), paint)


def draw_curves(path: Path, logs: Dict[Job, Path]) -> bool:
    """A panel per direction: the curve that its kind of run has, by update. False where matplotlib is not installed."""
    groups: Dict[Tuple[str, str], List[Job]] = {}
    for job in logs:
        groups.setdefault((job.corpus_name, job.direction), []).append(job)

    def paint(figure: Any) -> None:
        for axes, ((corpus, direction), jobs) in zip(_axes(figure, len(groups)), groups.items()):
            variants = list(dict.fromkeys(job.variant for job in jobs))
            first = {job.variant: job for job in reversed(jobs)}
            for job in jobs:
                points, label = job.kind.validation_curve(logs[job])
                of_variant = job.variant if first[job.variant] == job else None
                style = line_style(variants.index(job.variant))
                axes.plot(*zip(*points), **style, alpha=0.8, linewidth=1.2, label=of_variant)
                axes.set_ylabel(label, fontsize=8)
            axes.set_title(f"{corpus} {direction}", fontsize=9)
            axes.set_xlabel("updates", fontsize=8)
            plain(axes)
            axes.legend(fontsize=7)

    return save_png(path, _size(len(groups), 3.2), paint)


def _show(cell: Cell, best: float, digits: int) -> str:
    mean = f"{cell.mean:.{digits}f}"
    mean = f"**{mean}**" if cell.mean == best else mean
    against = "" if cell.difference is None else f", {cell.difference.text(digits)}"
    return f"{mean}{plus_minus(cell.std, digits)} ({len(cell.scores)}){against}"


def _round(value: Optional[float]) -> str:
    return "" if value is None else f"{value:.4f}"


def _size(panels: int, height: float) -> Tuple[float, float]:
    """Inches of a figure with so many panels of that height, two in a row."""
    return 6.0 * min(panels, 2), height * -(-panels // 2)


def _axes(figure: Any, panels: int) -> List[Any]:
    axes = list(figure.subplots(-(-panels // 2), min(panels, 2), squeeze=False).flat)
    for unused in axes[panels:]:
        unused.set_visible(False)
    return axes[:panels]

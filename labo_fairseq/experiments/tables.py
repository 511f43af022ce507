"""What a grid of runs shows, as tables like the paper's Table 1 and 2."""

import csv
import io
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import UserError
from ..evaluation.bootstrap import paired_p
from ..files import read_lines, whole_file, write_json
from ..reporting.table import Table
from .cells import Cell, Column
from .figures import draw_curves, draw_scores
from .grid import Grid, Job
from .run import Run, load_run
from .schedule import result_of

BLEU = "BLEU"


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

"""What a grid of runs will cost, and how a cluster gets it."""

import shlex
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Dict, List, Optional

from ..errors import UserError
from .grid import Grid, Job
from .schedule import Workers, result_of


def only(grid: Grid, number: int) -> Grid:
    """The run of that number in the plan, its teachers taken for finished.

    Raises:
        UserError: there is no such number.
    """
    if not 0 <= number < len(grid.jobs):
        raise UserError(f"{grid.name} has no run {number}: they go from 0 to {len(grid.jobs) - 1}")
    return replace(grid, jobs=(grid.jobs[number],))


def show_plan(grid: Grid, root: Path, workers: Workers) -> None:
    """Print every run with its number, whether it is done, and what the others will take."""
    results = {job: _result(job, root) for job in grid.jobs}
    measured = _measured(results)
    to_do: List[float] = []
    unknown = 0
    for number, job in enumerate(grid.jobs):
        if results[job] is not None:
            state = "done"
        else:
            hours = measured.get(job.corpus, job.hours)
            state = "?" if hours is None else f"{hours:.2g} h"
            unknown += hours is None
            to_do += [] if hours is None else [hours]
        print(f"{number:>4}  {job.corpus} {job.direction} {job.name:<40} {state}")
    done = sum(result is not None for result in results.values())
    print(f"{len(grid.jobs)} runs, {done} done")
    if to_do:
        source = "as finished runs on the same corpus took here" if measured else "as the grid expects"
        together = sum(to_do) / workers.number
        print(f"estimate: {sum(to_do):.3g} h of training ({source}); {together:.3g} h with {workers.number} at a time")
    if unknown:
        print(f"no estimate for {unknown} of them: no run on their corpus is finished here")


def slurm_script(grid: Grid, name: str, root: Path, gpus: int, smoke: bool = False) -> str:
    """A shell script that submits all runs as job arrays, those that need a teacher after the others."""
    first = [number for number, job in enumerate(grid.jobs) if not job.teachers]
    command = (
        f"python -m labo_fairseq experiment {shlex.quote(name)} --folder {shlex.quote(str(root))} --gpus-per-run {gpus}"
    )
    wrapped = shlex.quote(f"{command}{' --smoke' if smoke else ''} --only $SLURM_ARRAY_TASK_ID")
    submit = f"sbatch --parsable {shlex.quote(f'--job-name={grid.name}')} --gpus={gpus} --ntasks=1"
    lines = [
        "#!/usr/bin/env bash",
        f"# Submits the {len(grid.jobs)} runs of {grid.name!r}, from the top of a checkout that all nodes share.",
        "# Further options of sbatch (--time, --partition, --account, ...) may follow the name of this script.",
        "set -euo pipefail",
        f'first=$({submit} --array=0-{len(first) - 1} "$@" --wrap {wrapped})',
        'echo "submitted $first"',
    ]
    if len(first) < len(grid.jobs):
        rest = f"--array={len(first)}-{len(grid.jobs) - 1}"
        lines.append(f'{submit} {rest} --dependency="afterany:$first" "$@" --wrap {wrapped}')
    return "\n".join(lines) + "\n"


def _result(job: Job, root: Path) -> Optional[Dict]:
    try:
        return result_of(job, root)
    except UserError:  # the schedule says it in its place
        return None


def _measured(results: Dict[Job, Optional[Dict]]) -> Dict[str, float]:
    """Corpus → hours of training of a run, the median of the finished ones."""
    hours: Dict[str, List[float]] = {}
    for job, result in results.items():
        if result is not None and result["training"].get("seconds"):
            hours.setdefault(job.corpus, []).append(result["training"]["seconds"] / 3600)
    return {corpus: statistics.median(each) for corpus, each in hours.items()}

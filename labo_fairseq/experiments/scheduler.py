"""Runs or resumes every experiment of a grid, several at a time, as processes of ``labo-fairseq run``; its plan."""

import json
import os
import shlex
import statistics
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import torch
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from ..cli_types import RUNS
from ..errors import UserError
from ..evaluation.runs import RunResult
from ..subprocesses import child_command, killed
from .grid import Grid, Job, result_of

_POLL = 0.5  # seconds


@dataclass(frozen=True)
class Workers:
    """How many runs at a time, and on what."""

    number: int
    gpus: Sequence[str]  # as CUDA_VISIBLE_DEVICES names them; none: the CPU
    gpus_per_run: int = 1

    def environment(self, slot: int) -> Dict[str, str]:
        """What the process of worker ``slot`` finds in its environment."""
        if self.gpus:
            first = slot * self.gpus_per_run
            mine = [self.gpus[(first + offset) % len(self.gpus)] for offset in range(self.gpus_per_run)]
            return {"CUDA_VISIBLE_DEVICES": ",".join(mine), "NUM_GPUS": str(len(mine))}
        threads = max(1, (os.cpu_count() or 1) // self.number)
        return {"NUM_GPUS": "0", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}


def find_workers(number: Optional[int], gpus_per_run: int) -> Workers:
    """``number`` workers; None: as many as there are GPUs for, on a machine without any one.

    Raises:
        UserError: a run would get more GPUs than there are.
    """
    there = torch.cuda.device_count()
    named = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    gpus = named if len(named) == there else [str(number) for number in range(there)]
    if gpus_per_run > max(1, there):
        raise UserError(f"{gpus_per_run} GPUs per run were asked for and {there} are here")
    return Workers(number or max(1, there // gpus_per_run), gpus[:there], gpus_per_run)


class Schedule:
    """The runs of a grid: which are done, which go on, which failed and why."""

    def __init__(self, grid: Grid, root: Path, workers: Workers, console: Optional[Console] = None) -> None:
        self.grid, self.root, self.workers = grid, root, workers
        self.console = console or Console(highlight=False)
        self.done: List[Job] = []
        self.failed: Dict[Job, str] = {}
        self.waiting = list(grid.jobs)
        self.running: Dict[int, Tuple[Job, subprocess.Popen]] = {}  # by worker

    def complete(self) -> Dict[Job, str]:
        """Run or resume every experiment; those that failed, and why."""
        with Live(get_renderable=self._table, console=self.console, refresh_per_second=1, transient=True):
            while self.waiting or self.running:
                self._collect()
                self._start()
                time.sleep(_POLL if self.running else 0)
        return self.failed

    def _start(self) -> None:
        for job in list(self.waiting):
            going = {running for running, _ in self.running.values()}
            broken = [teacher.name for teacher in job.teachers if teacher in self.failed]
            if broken:
                self.waiting.remove(job)
                self._fail(job, f"its teacher {broken[0]} failed")
                continue
            try:
                finished = result_of(job, self.root)
            except UserError as error:
                self.waiting.remove(job)
                self._fail(job, str(error))
                continue
            if finished is not None:
                self.waiting.remove(job)
                self._finish(job, finished)
            elif len(self.running) < self.workers.number and not any(
                teacher in self.waiting or teacher in going for teacher in job.teachers
            ):
                self._launch(job, min(set(range(self.workers.number)) - set(self.running)))

    def _launch(self, job: Job, slot: int) -> None:
        log = self.log(job)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w", encoding="utf-8") as file:
            process = subprocess.Popen(
                child_command("labo_fairseq", job.arguments(self.root)),
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.workers.environment(slot)},
            )
        self.waiting.remove(job)
        self.running[slot] = job, process

    def _collect(self) -> None:
        for slot, (job, process) in list(self.running.items()):
            status = process.poll()
            if status is None:
                continue
            if process.stdin:
                process.stdin.close()
            del self.running[slot]
            result = result_of(job, self.root) if status == 0 else None
            if result is not None:
                self._finish(job, result)
            else:
                self._fail(job, why_it_failed(status, self.log(job)))

    def _finish(self, job: Job, result: RunResult) -> None:
        self.done.append(job)
        self._say("[green]done[/]  ", job, headline(result))

    def _fail(self, job: Job, failure: str) -> None:
        self.failed[job] = failure
        self._say("[red]failed[/]", job, escape(failure))

    def _say(self, state: str, job: Job, text: str) -> None:
        # a line is a line, in a file too
        self.console.print(f"{state}  {job.corpus_name} {job.direction} {job.name}  {text}", soft_wrap=True)

    def log(self, job: Job) -> Path:
        """What the run of ``job`` printed."""
        return self.root / "experiments" / self.grid.name / "logs" / f"{job.corpus_name}_{job.direction}_{job.name}.log"

    def _table(self) -> Table:
        counts = f"{len(self.done)} done, {len(self.running)} running, {len(self.waiting)} waiting"
        failed = f", [red]{len(self.failed)} failed[/]" if self.failed else ""
        table = Table("run", "progress", title=f"{self.grid.title}: {counts}{failed}", title_justify="left")
        for slot in sorted(self.running):
            job, _ = self.running[slot]
            table.add_row(f"{job.corpus_name} {job.direction} {job.name}", progress(job, self.root))
        return table


def headline(result: RunResult) -> str:
    """The first score of a finished run."""
    first = next(iter(result.evaluation.tests.values()))[0]
    return f"{first.name} {first.value:.2f}"


def progress(job: Job, root: Path) -> str:
    """In words, how far the run of ``job`` has come."""
    folder = job.folder(root)
    if (folder / "training.json").exists():
        return "translating"
    log, settings = folder / "train.log", folder / "settings.json"
    if not (log.exists() and settings.exists()):
        return "preparing"
    return job.kind.progress(log, json.loads(settings.read_text(encoding="utf-8"))["config"])


def why_it_failed(status: int, log: Path) -> str:
    """In one line, why a run did not finish: what killed it, a user's mistake, or the last line that it wrote."""
    if status < 0:  # its last line says how far it had come
        return f"{killed(status)}; see {log}"
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    prefix = "labo-fairseq run: "
    said = last[len(prefix) :] if last.startswith(prefix) else last.strip()
    return said or f"ended with status {status}"


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
    device, sharing = ("gpu" if workers.gpus else "cpu"), workers.gpus_per_run
    expected = estimates(results, device, sharing)
    to_do = {job: expected[job] for job, result in results.items() if result is None}
    for number, job in enumerate(grid.jobs):
        estimate = to_do.get(job)
        state = _in_words(estimate.hours) if estimate else "?" if job in to_do else "done"
        print(f"{number:>4}  {job.corpus_name} {job.direction} {job.name:<40} {state}")
    print(f"{len(grid.jobs)} runs, {len(grid.jobs) - len(to_do)} done")
    known = [estimate for estimate in to_do.values() if estimate is not None]
    if known:
        sources = []
        if any(estimate.measured for estimate in known):
            sources.append("as finished runs on the same corpus took here")
        if not all(estimate.measured for estimate in known):
            sharers = f", {sharing} of which share a run" if sharing > 1 else ""
            sources.append(f"as declared for one {'GPU' if workers.gpus else 'CPU core'}{sharers}")
        hours = sum(estimate.hours for estimate in known)
        source, together = ", others ".join(sources), _in_words(hours / workers.number)
        print(f"estimate: {_in_words(hours)} of training ({source}); {together} with {workers.number} at a time")
    unknown = len(to_do) - len(known)
    if unknown:
        reason = f"their corpus declares no hours for a {device.upper()}, and no run on it is finished here"
        if all(job.smoke for job in to_do):
            reason = "no smoke run on their corpus is finished here"
        print(f"no estimate for {unknown} of them: {reason}")


def _in_words(hours: float) -> str:
    return f"{hours:.2g} h" if hours < 100 else f"{hours:,.0f} h"


def report_command(name: str, root: Path, smoke: bool) -> str:
    """What prints the tables of the grid ``name``, whose runs lie below ``root``."""
    folder = [] if root == RUNS else ["--folder", str(root)]
    return shlex.join(["labo-fairseq", "experiment", "report", name, *folder, *(["--smoke"] if smoke else [])])


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


def _result(job: Job, root: Path) -> Optional[RunResult]:
    try:
        return result_of(job, root)
    except UserError:  # the schedule says it in its place
        return None


class Estimate(NamedTuple):
    """What a run is expected to take."""

    hours: float
    measured: bool  # by finished runs; else as declared


def estimates(
    results: Mapping[Job, Optional[RunResult]], device: str, gpus_per_run: int = 1
) -> Dict[Job, Optional[Estimate]]:
    """Every run's hours of training, where anything is known of them.

    They are those that are declared, which tell the methods apart, times what finished runs on the same corpus, or data
    set and network, took here of theirs.

    Args:
        device: "cpu" or "gpu".
        gpus_per_run: how many share what is declared for one.
    """
    took: Dict[str, List[float]] = {}
    ratios: Dict[str, List[float]] = {}
    for job, result in results.items():
        if result is not None and result.training.seconds:
            hours = result.training.seconds / 3600
            took.setdefault(job.subject.timed_with, []).append(hours)
            if device in job.hours:
                ratios.setdefault(job.subject.timed_with, []).append(hours / job.hours[device])
    expected: Dict[Job, Optional[Estimate]] = {}
    for job in results:
        subject, declared = job.subject.timed_with, job.hours.get(device)
        if declared and subject in ratios:
            expected[job] = Estimate(declared * statistics.median(ratios[subject]), True)
        elif subject in took:
            expected[job] = Estimate(statistics.median(took[subject]), True)
        else:  # hours are declared for runs of the full size
            expected[job] = Estimate(declared / gpus_per_run, False) if declared and not job.smoke else None
    return expected

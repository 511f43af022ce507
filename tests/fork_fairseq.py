"""Many of fairseq's commands, one after the other, each with a log and a record of its own."""

import os
from contextlib import contextmanager
from pathlib import Path

from fork_server import ForkServer


def job(folder, name, command, arguments):
    """``fairseq-COMMAND ARGUMENTS``; its output goes to ``NAME.log``, and ``RECORD`` is ``NAME.pt``."""
    return {
        "arguments": [f"fairseq-{command}", *map(str, arguments)],
        "log": str(folder / f"{name}.log"),
        "env": {"RECORD": str(folder / f"{name}.pt")},
    }


@contextmanager
def runner(commands, path=()):
    """A function that runs a job and returns its exit status; ``path`` is for ``PYTHONPATH``."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1"}
    server = ForkServer(commands, environment)

    def run(job):
        status, output = server.run(job["arguments"], {**environment, **job["env"]}, str(Path.cwd()))
        Path(job["log"]).write_text(output, encoding="utf-8")
        return status

    try:
        yield run
    finally:
        server.close()


def fork(jobs):
    """The exit status of each of the jobs."""
    with runner(sorted({job["arguments"][0] for job in jobs})) as run:
        return [run(job) for job in jobs]

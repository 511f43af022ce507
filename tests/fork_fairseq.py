"""fairseq's commands one after the other, each in a process of its own that has fairseq imported already.

``python fork_fairseq.py JOBS ENDED``: JOBS is a JSON file, a list of :func:`job`; ENDED is to hold their exit
statuses. :func:`fork` does it.
"""

import importlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path


def job(folder, name, command, arguments):
    """``fairseq-COMMAND ARGUMENTS``; its output goes to ``NAME.log``, and ``RECORD`` is ``NAME.pt``."""
    return {
        "command": command.replace("-", "_"),
        "arguments": [str(argument) for argument in arguments],
        "log": str(folder / f"{name}.log"),
        "env": {"RECORD": str(folder / f"{name}.pt")},
    }


def fork(folder, jobs, path=()):
    """How each of the jobs ended; ``path`` is for ``PYTHONPATH``, ``folder`` for files."""
    files = folder / "jobs.json", folder / "ended.json"
    files[0].write_text(json.dumps(jobs), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, __file__, *map(str, files)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return json.loads(files[1].read_text(encoding="utf-8"))


def warm_up():
    """Load what every training would load for itself, for more seconds than it trains."""
    with suppress(ImportError):  # older torch
        import torch._dynamo  # noqa: F401
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    arguments = ["data", "--arch", "transformer", "--optimizer", "adam"]
    convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), arguments))


def main(jobs_file, ended_file):
    jobs = json.loads(Path(jobs_file).read_text(encoding="utf-8"))
    mains = {job["command"]: importlib.import_module(f"fairseq_cli.{job['command']}").cli_main for job in jobs}
    warm_up()
    ended = []
    for job in jobs:
        child = os.fork()
        if child == 0:
            log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ.update(job["env"])
            sys.argv = [f"fairseq-{job['command']}", *job["arguments"]]
            mains[job["command"]]()
            return
        _, status = os.waitpid(child, 0)
        ended.append(os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status))
    Path(ended_file).write_text(json.dumps(ended), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

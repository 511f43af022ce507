"""Commands in processes that need not import fairseq first: it takes longer than the tests train.

The server is a Python that has imported what fairseq's console scripts import, and nothing of the plugin. For each
command it forks; the child is what the script would be from there on, with its own arguments, variables, directory and
output, and ends as a Python process does. What it starts itself, such as the training of ``labo-fairseq run``, are new
processes.
"""

import atexit
import gc
import importlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from contextlib import suppress

#: not fairseq-hydra-train, which looks for plugins when Python starts
FAIRSEQ = ("fairseq-train", "fairseq-generate", "fairseq-validate", "fairseq-interactive")
COMMANDS = (*FAIRSEQ, "labo-fairseq")
_AT_THE_START = ("PYTHON", "OMP_", "MKL_", "KMP_", "LD_")  # variables that are read when a process begins


class ForkServer:
    """A server, started with the first command; it ends with the process that started it, or when it is closed.

    Args:
        commands: of fairseq's, which it can run; labo-fairseq it can run always.
        environment: its variables; by default those of this process when it starts.
    """

    def __init__(self, commands=FAIRSEQ, environment=None):
        self._process = None
        self._commands = commands
        self._environment = environment

    def serves(self, environment):
        """Whether a child would find these variables as a new process does."""
        self._start()
        names = {name for name in {*environment, *self._environment} if name.startswith(_AT_THE_START)}
        return all(environment.get(name) == self._environment.get(name) for name in names)

    def run(self, arguments, environment, folder):
        """The exit status of one of its commands, negative for a signal, and its output."""
        self._start()
        with tempfile.NamedTemporaryFile() as log:
            job = {"arguments": arguments, "environment": environment, "folder": folder, "log": log.name}
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            return status, log.read().decode("utf-8")

    def close(self):
        """End the server."""
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()

    def _start(self):
        if self._process is not None:
            return
        self._environment = self._environment or dict(os.environ)
        self._process = subprocess.Popen(
            [sys.executable, __file__, *self._commands],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=self._environment,
        )
        atexit.register(self._process.stdin.close)


def _load_what_a_training_loads():
    """Parse a command line: what fairseq and Hydra load for it takes more seconds than a test trains."""
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    arguments = ["data", "--arch", "transformer", "--optimizer", "adam"]
    convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), arguments))


def main(*commands):
    jobs, replies = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    mains = {name: importlib.import_module(f"fairseq_cli.{_module(name)}").cli_main for name in commands}
    mains["labo-fairseq"] = _labo_fairseq
    with suppress(ImportError):  # older torch
        import torch._dynamo  # noqa: F401  an optimizer imports it
    _load_what_a_training_loads()
    # or each child's garbage collector visits, and so copies, all that was imported: half of its time
    gc.freeze()
    for line in iter(jobs.readline, ""):
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            jobs.close()
            replies.close()
            log = os.open(job["log"], os.O_WRONLY | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ.clear()
            os.environ.update(job["environment"])
            os.chdir(job["folder"])
            sys.argv = job["arguments"]
            sys.exit(mains[os.path.basename(sys.argv[0])]())
        _, status = os.waitpid(child, 0)
        replies.write(f"{os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)}\n")
        replies.flush()


def _labo_fairseq():
    logging.getLogger().handlers.clear()  # of fairseq_cli, which this command would not have imported
    return importlib.import_module("labo_fairseq.cli").main()


def _module(command):
    return command[len("fairseq-") :].replace("-", "_")


if __name__ == "__main__":
    main(*sys.argv[1:])

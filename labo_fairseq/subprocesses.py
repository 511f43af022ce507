"""Python programs, fairseq's own above all, as child processes that do not outlive the one who started them."""

import os
import resource
import signal
import socket
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread
from typing import Callable, Generator, List, Mapping, Optional, Sequence

from .errors import UserError

USER_DIR = str(Path(__file__).resolve().parent)

# The child's stdin is a pipe held by the parent: it ends when the parent dies, even by kill -9, and the
# child follows, with all processes that it started. Otherwise the next attempt would find an orphan training
# into the same folder.
_CHILD = """
import os, runpy, signal, sys, threading
os.setpgrp()
def follow():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=follow, daemon=True).start()
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""

_LONGEST_REASON = 300  # characters


class ErrorTail:
    """Why a Python program failed, in one line: the error of its last traceback, or the last line that it wrote."""

    def __init__(self) -> None:
        self._last = ""
        self._error: List[str] = []
        self._in_traceback = False

    def feed(self, line: str) -> None:
        """Take note of the next line."""
        text = line.strip()
        if not text:
            return
        self._last = text
        if line.startswith("Traceback"):
            self._error, self._in_traceback = [], True
        elif not line[0].isspace():
            if self._in_traceback:
                self._error = [text]
            self._in_traceback = False
        elif self._error:  # torch and Hydra say more in indented lines
            self._error.append(text)

    def __str__(self) -> str:
        reason = " ".join(self._error) or self._last or "(no output)"
        return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]} …"


def child_command(module: str, arguments: Sequence[str]) -> List[str]:
    """``python -m MODULE ARGUMENTS``, ending with its parent if that gives it a pipe for its stdin."""
    return [sys.executable, "-c", _CHILD, module, *arguments]


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def peak_memory_mib(who: int) -> int:
    """The largest resident size so far, of ``resource.RUSAGE_SELF`` or of the largest of ``RUSAGE_CHILDREN``."""
    return resource.getrusage(who).ru_maxrss // (1 << 20 if sys.platform == "darwin" else 1 << 10)


def killed(status: int) -> str:
    """In words, what ended a process with a ``status`` below 0: the signal, and what may have sent it."""
    try:
        name = signal.Signals(-status).name
    except ValueError:  # a real-time signal
        name = f"signal {-status}"
    return f"killed ({name}){', possibly out of memory' if name == 'SIGKILL' else ''}"


def run_fairseq(
    command: str, arguments: Sequence[str], log: Path, watch: Callable[[str], None] = lambda line: None
) -> None:
    """Run ``fairseq-COMMAND ARGUMENTS``, see :func:`run_module`."""
    run_module(f"fairseq-{command}", f"fairseq_cli.{command}", arguments, log, watch)


def run_module(
    name: str,
    module: str,
    arguments: Sequence[str],
    log: Path,
    watch: Callable[[str], None] = lambda line: None,
    environment: Optional[Mapping[str, str]] = None,
) -> None:
    """Run ``python -m MODULE ARGUMENTS``; every line of its output is appended to ``log`` and given to ``watch``.

    Args:
        name: of the command, for messages.
        environment: more variables for it.

    Raises:
        UserError: the command fails; the message says why.
    """
    with open(log, "a", encoding="utf-8", newline="\n") as file, closing(
        module_output(name, module, arguments, lambda: log, environment)
    ) as lines:
        for line in lines:
            file.write(line + "\n")
            file.flush()
            watch(line)


def module_output(
    name: str,
    module: str,
    arguments: Sequence[str],
    log: Callable[[], Path],
    environment: Optional[Mapping[str, str]] = None,
) -> Generator[str, None, None]:
    """The lines that ``python -m MODULE ARGUMENTS`` prints, while it runs; see :func:`run_module`.

    Args:
        log: where the caller keeps the lines, for messages.

    Raises:
        UserError: after the last line, if the command fails.
    """
    words = ErrorTail()
    process = subprocess.Popen(
        child_command(module, arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        # Hydra's own short form of an error leaves the cause out, or fails (1.0 on Python 3.10)
        env={**os.environ, "HYDRA_FULL_ERROR": "1", **(environment or {})},
    )
    Thread(target=_end_group, args=(process,), daemon=True).start()
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            words.feed(line)
            yield line.rstrip("\n")
        status = process.wait()
    if status == -signal.SIGKILL:
        raise UserError(f"{name} was {killed(status)}; re-run the same command to resume, see {log()}")
    if status != 0:
        raise UserError(f"{name} ended with status {status}; see {log()}: {words}")


def _end_group(process: subprocess.Popen) -> None:
    """End what ``process`` leaves behind when it is killed: it would keep the output open, and the caller waiting."""
    process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)

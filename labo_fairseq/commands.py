"""Python programs, fairseq's own above all, as child processes that do not outlive the one who started them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Callable, List, Sequence

from .errors import UserError

USER_DIR = str(Path(__file__).resolve().parent)

# The child's stdin is a pipe held by the parent: it ends when the parent dies, even by kill -9, and the
# child follows. Otherwise the next attempt would find an orphan training into the same folder.
_CHILD = """
import os, runpy, sys, threading
def follow():
    os.read(0, 1)
    os._exit(1)
threading.Thread(target=follow, daemon=True).start()
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""

_TAIL = 5  # lines of a failed command shown to the user


def child_command(module: str, arguments: Sequence[str]) -> List[str]:
    """``python -m MODULE ARGUMENTS``, ending with its parent if that gives it a pipe for its stdin."""
    return [sys.executable, "-c", _CHILD, module, *arguments]


def run_fairseq(
    command: str, arguments: Sequence[str], log: Path, watch: Callable[[str], None] = lambda line: None
) -> None:
    """Run ``fairseq-COMMAND ARGUMENTS``; every line of its output is appended to ``log`` and given to ``watch``.

    Raises:
        UserError: the command fails; the message ends with its last lines.
    """
    tail: List[str] = []
    process = subprocess.Popen(
        child_command(f"fairseq_cli.{command}", arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        # Hydra's own short form of an error leaves the cause out, or fails (1.0 on Python 3.10)
        env={**os.environ, "HYDRA_FULL_ERROR": "1"},
    )
    with process, open(log, "a", encoding="utf-8", newline="\n") as file:
        for line in process.stdout:
            file.write(line)
            file.flush()
            watch(line.rstrip("\n"))
            tail = [*tail, line.rstrip()][-_TAIL:]
        status = process.wait()
    if status != 0:
        raise UserError(f"fairseq-{command} ended with status {status}; see {log}. Its last lines:\n" + "\n".join(tail))

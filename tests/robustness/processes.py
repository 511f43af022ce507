"""Commands that are killed, for the programs that see what is left of them. Linux: it reads /proc."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import List, Sequence

MAIN, ALL, CHILD = "main", "all", "child"
#: what a kill -9 hits: the command alone, as an impatient user; everything at once, as the machine that goes down; one
#: process that the command started, as the kernel that runs out of memory
VICTIMS = (MAIN, ALL, CHILD)
_SHORT, _LONG = 30, 300  # seconds to follow a parent that died; to end after a child died


class Killable:
    """A command in ``folder`` and in a session of its own; its output goes to ``log``."""

    def __init__(self, command: Sequence[str], log: Path, folder: Path) -> None:
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=folder,
                start_new_session=True,
            )

    def wait(self, seconds: float) -> bool:
        """Whether it ended by itself within that time."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def members(self) -> List[int]:
        """Numbers of its processes, itself included, that have not ended."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session(pid) == self.process.pid]

    def kill(self, victim: str, random: Random) -> str:
        """``kill -9``; what was hit, which is the command itself where it has no child to hit.

        Raises:
            RuntimeError: a process of it goes on all the same.
        """
        children = [pid for pid in self.members() if pid != self.process.pid]
        if victim == ALL:
            self._end()
        elif victim == CHILD and children:
            os.kill(random.choice(children), signal.SIGKILL)
        else:
            victim = MAIN
            self.process.kill()
        try:
            # the command may do what is left to do without its child
            if not self.wait(_LONG if victim == CHILD else _SHORT):
                raise RuntimeError(f"the command hangs after a kill -9 of its {victim}")
            deadline = time.monotonic() + _SHORT
            while self.members():
                if time.monotonic() > deadline:
                    raise RuntimeError(f"processes {self.members()} outlived a kill -9 of their {victim}")
                time.sleep(0.1)
        finally:
            self._end()
        return victim

    def _end(self) -> None:
        for pid in self.members():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _session(process: int) -> int:
    """The session of a process; 0 if it has ended."""
    try:
        # the name, in brackets, may hold anything
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] == "Z" else int(fields[3])

"""What a process does that torchrun has started: it ends with torchrun, and says in one line if another one is gone."""

import os
import re
import signal
import time
from threading import Thread
from typing import Callable

_POLL = 1.0  # seconds
# what gloo and NCCL say when the other end of a connection is gone, or stays silent
_GONE = re.compile(
    r"connection (closed|reset|refused)|broken pipe|socket (closed|timeout)|timed out waiting|remote process exited"
    r"|nccl (remote|error)|watchdog",
    re.IGNORECASE,
)


def run_worker(train: Callable[[], None]) -> None:
    """Call ``train``; the process ends as soon as the one that started it does.

    Raises:
        SystemExit: another worker of the training ended.
    """
    Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    try:
        train()
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        if not _GONE.search(reason):
            raise
        raise SystemExit(
            f"another worker of this training ended ({reason[:100]}): see its node; "
            "re-run the same command on every node to resume from the last checkpoint"
        ) from None


def _follow(agent: int) -> None:
    """Die as soon as the process that started this one has: otherwise it would train on, beside its successor."""
    while os.getppid() == agent:
        time.sleep(_POLL)
    os.kill(os.getpid(), signal.SIGKILL)

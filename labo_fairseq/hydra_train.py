"""``fairseq-hydra-train`` with the plugin in it from the start, for torchrun above all.

    torchrun --nproc_per_node 2 --module labo_fairseq.hydra_train --config-dir DIR --config-name NAME

fairseq-hydra-train loads a plugin when it has started its workers, which is too late for what the plugin repairs there.
A worker of torchrun ends with the process that started it, and says in one line that another worker is gone.
"""

import os
import re
import signal
import time
from threading import Thread

from fairseq_cli.hydra_train import cli_main

from . import criterions  # noqa: F401

_POLL = 1.0  # seconds
# what gloo and NCCL say when the other end of a connection is gone, or stays silent
_GONE = re.compile(
    r"connection (closed|reset|refused)|broken pipe|socket (closed|timeout)|timed out waiting|remote process exited"
    r"|nccl (remote|error)|watchdog",
    re.IGNORECASE,
)


def main() -> None:
    """Train; as a worker of torchrun, end with its agent.

    Raises:
        SystemExit: another worker of the training ended.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        cli_main()
        return
    Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    try:
        cli_main()
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


if __name__ == "__main__":
    main()

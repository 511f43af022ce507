"""torchrun for one node of a training, which leaves it to its workers to say why they ended.

python -m labo_fairseq.torchrun OPTIONS-OF-TORCHRUN --module labo_fairseq.hydra_train --config-dir DIR ...
"""

import logging
import signal
import sys
from typing import Any

from torch.distributed import run
from torch.distributed.elastic.agent.server import SimpleElasticAgent, WorkerState
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

_FAREWELL = 10  # seconds


def main() -> None:
    """Run the workers of this node.

    Raises:
        SystemExit: one of them failed.
    """
    # its reports of a failure are longer than the worker's, and know less
    logging.disable(logging.CRITICAL)
    _do_not_wait_for_the_dead()
    try:
        run.main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            sys.exit(failure.exitcode)
        cause = signal.Signals(-failure.exitcode).name
        raise SystemExit(f"worker {rank} was killed ({cause}), possibly out of memory") from None


def _do_not_wait_for_the_dead() -> None:
    """Let a node whose training has failed end soon: torchrun would wait five minutes for a node that was killed."""
    wait = SimpleElasticAgent._exit_barrier

    def wait_for_others(agent: Any) -> None:
        if agent._worker_group.state is WorkerState.FAILED:
            agent._exit_barrier_timeout = _FAREWELL
        wait(agent)

    SimpleElasticAgent._exit_barrier = wait_for_others  # type: ignore[method-assign]


if __name__ == "__main__":
    main()

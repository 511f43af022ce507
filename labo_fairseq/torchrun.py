"""torchrun for one node of a training, which leaves it to its workers to say why they ended.

python -m labo_fairseq.torchrun OPTIONS-OF-TORCHRUN --module labo_fairseq.hydra_train --config-dir DIR ...
"""

import logging
import signal
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main() -> None:
    """Run the workers of this node.

    Raises:
        SystemExit: one of them failed.
    """
    # its reports of a failure are longer than the worker's, and know less
    logging.disable(logging.CRITICAL)
    try:
        run.main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            sys.exit(failure.exitcode)
        cause = signal.Signals(-failure.exitcode).name
        raise SystemExit(f"worker {rank} was killed ({cause}), possibly out of memory") from None


if __name__ == "__main__":
    main()

"""``fairseq-hydra-train`` with the plugin in it from the start, for torchrun above all.

    torchrun --nproc_per_node 2 --module labo_fairseq.hydra_train --config-dir DIR --config-name NAME

fairseq-hydra-train loads a plugin when it has started its workers, which is too late for what the plugin repairs there.
"""

import os

from fairseq_cli.hydra_train import cli_main

from . import criterions  # noqa: F401
from .torchrun_worker import run_worker


def main() -> None:
    """Train; as a worker of torchrun where it is one, see :func:`run_worker`."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        run_worker(cli_main)
    else:
        cli_main()


if __name__ == "__main__":
    main()

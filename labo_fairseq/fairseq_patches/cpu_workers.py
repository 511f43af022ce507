"""Let fairseq train with several processes on CPUs, as it does with several GPUs.

It starts as many processes as there are GPUs, and divides by that number to learn which of torchrun's processes it is;
what its processes talk through by default needs GPUs too. Without one, ``--distributed-world-size 2`` is refused and
torchrun ends in a ZeroDivisionError, or in two trainings that write over each other's checkpoints.
"""

import logging
import os
from functools import wraps
from typing import Any, Callable

import torch
from fairseq.distributed import utils as distributed_utils

from ..subprocesses import free_port
from .command_line import as_written

logger = logging.getLogger(__name__)

_TORCHRUN = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")

_call_main = distributed_utils.call_main


@wraps(_call_main)
def _call_main_on_cpus(cfg: Any, main: Callable, **kwargs: Any) -> None:
    training = cfg.distributed_training
    if (torch.cuda.is_available() and not cfg.common.cpu) or cfg.common.tpu or training.distributed_init_method:
        _call_main(cfg, main, **kwargs)
        return
    by_torchrun = all(name in os.environ for name in _TORCHRUN)
    if by_torchrun:
        training.distributed_world_size = int(os.environ["WORLD_SIZE"])
    if training.distributed_world_size == 1:
        _call_main(cfg, main, **kwargs)
        return
    _talk_without_gpus(training)
    if by_torchrun:
        training.distributed_init_method = "env://"
        training.distributed_rank = int(os.environ["RANK"])
        training.distributed_no_spawn = True
        _call_main(cfg, main, **kwargs)
        return
    training.distributed_init_method = f"tcp://127.0.0.1:{free_port()}"
    training.distributed_rank = None  # given by distributed_main
    torch.multiprocessing.spawn(
        distributed_utils.distributed_main,
        args=(main, cfg, {**kwargs, "start_rank": 0}),
        nprocs=training.distributed_world_size,
    )


def _talk_without_gpus(training: Any) -> None:
    if training.distributed_backend == "nccl":
        logger.info("no GPU is used: the workers talk through gloo")
        training.distributed_backend = "gloo"
    if training.ddp_backend in {"c10d", "pytorch_ddp"}:
        logger.info(as_written(f"no GPU is used: --ddp-backend legacy_ddp in place of {training.ddp_backend}"))
        training.ddp_backend = "legacy_ddp"


def train_on_cpus() -> None:
    """Replace ``call_main``, which starts every training."""
    distributed_utils.call_main = _call_main_on_cpus

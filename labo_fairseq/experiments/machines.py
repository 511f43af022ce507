"""What a training runs on: GPUs or processes on CPUs, of one machine (node) or of several."""

import os
import re
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional

import torch

from ..errors import UserError
from ..subprocesses import free_port

_MOST = 1024  # workers of a node, nodes
_MASTER = re.compile(r"([^\s:/]+|\[[0-9a-fA-F:]+\]):(\d{1,5})")


@dataclass(frozen=True)
class Machines:
    """The processes of a training. Of no influence on what is computed: an update sees the same tokens.

    Raises:
        UserError: numbers that do not go together.
    """

    gpus: Optional[int] = None  # of each node; None: all there are; 0: the CPU
    cpu_workers: int = 1  # processes of each node, where it uses no GPU
    nodes: int = 1
    node: int = 0  # which of them this is
    master: str = ""  # HOST:PORT of node 0, at which several nodes meet

    def __post_init__(self) -> None:
        if self.node >= self.nodes:
            raise UserError(f"--node must be below --nodes, which is {self.nodes}, got {self.node}")
        if self.nodes > 1 and not _MASTER.fullmatch(self.master):
            raise UserError(f"--master must be HOST:PORT of node 0, got {self.master!r}")
        if self.nodes == 1 and self.master:
            raise UserError("--master goes with --nodes: say how many nodes there are, or leave it out")
        there = torch.cuda.device_count()
        if self.gpus is not None and self.gpus > there:
            raise UserError(f"{self.gpus} GPUs were asked for and {there} are here: set NUM_GPUS to at most {there}")
        if self.used_gpus and self.cpu_workers > 1:
            raise UserError("NUM_CPU_WORKERS is for a training without GPUs: set NUM_GPUS=0 with it, or leave it out")

    @property
    def used_gpus(self) -> int:
        """GPUs of this node that are used."""
        return torch.cuda.device_count() if self.gpus is None else self.gpus

    @property
    def workers_per_node(self) -> int:
        """Processes that train on each node: one per GPU, or those on the CPU."""
        return self.used_gpus or self.cpu_workers

    @property
    def workers(self) -> int:
        """Processes that train, of all nodes together."""
        return self.nodes * self.workers_per_node

    def torchrun(self) -> List[str]:
        """Options of torchrun for this node."""
        host, _, port = (self.master or f"127.0.0.1:{free_port()}").rpartition(":")
        return [
            *("--nnodes", str(self.nodes), "--node_rank", str(self.node)),
            *("--nproc_per_node", str(self.workers_per_node), "--master_addr", host.strip("[]"), "--master_port", port),
        ]

    def environment(self) -> Dict[str, str]:
        """Variables for the processes that train: workers on one CPU share its cores."""
        if self.used_gpus or self.workers_per_node == 1 or "OMP_NUM_THREADS" in os.environ:
            return {}
        return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.workers_per_node))}


def machines_here(
    environment: Mapping[str, str] = os.environ, nodes: int = 1, node: int = 0, master: str = ""
) -> Machines:
    """What NUM_GPUS and NUM_CPU_WORKERS say of this node.

    Raises:
        UserError: one is not a number, or see :class:`Machines`.
    """
    gpus = _number(environment, "NUM_GPUS", "a number of GPUs, 0 for the CPU", 0)
    workers = _number(environment, "NUM_CPU_WORKERS", "a number of processes, at least 1", 1)
    return Machines(gpus, workers or 1, nodes, node, master)


def _number(environment: Mapping[str, str], name: str, meaning: str, least: int) -> Optional[int]:
    value = environment.get(name)
    if not value:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", value) or not least <= int(value) <= _MOST:
        raise UserError(f"{name} is {value!r}: it must be {meaning}")
    return int(value)

"""Processor time of an update of the networks for images, in both memory formats of torch.

  python benchmarks/images.py                                    those of cifar100_small and digits, on one thread
  python benchmarks/images.py --networks resnet18:64x3x32        WIDTHxCHANNELSxSIDE
  python benchmarks/images.py --batch 64 --rounds 9 --threads 2

In a round each format makes one update of the same network on the same images; the ratio is the median over the
rounds. Processor time, which other programs on the machine disturb less than the clock.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

import torch
from torch.nn.functional import cross_entropy

from labo_fairseq.files import write_json
from labo_fairseq.images.networks import build_network

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Case(NamedTuple):
    """A network and the images that it sees."""

    network: str
    width: float
    channels: int
    side: int

    @classmethod
    def parse(cls, text: str) -> "Case":
        try:
            network, numbers = text.split(":")
            width, channels, side = numbers.split("x")
            return cls(network, float(width) if "." in width else int(width), int(channels), int(side))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not NETWORK:WIDTHxCHANNELSxSIDE") from None


CASES = [Case("resnet18", 16, 3, 32), Case("mobilenetv2", 0.5, 3, 32), Case("resnet18", 8, 1, 28)]


def measure(case: Case, batch: int, rounds: int) -> Dict[str, Any]:
    """The ratio of the two formats, channels_last to the other."""
    torch.manual_seed(0)
    images, target = torch.randn(batch, case.channels, case.side, case.side), torch.randint(10, (batch,))
    networks = {}
    for name, memory_format in FORMATS.items():
        network = build_network(case.network, 10, case.channels, {"width": case.width})
        networks[name] = network.to(memory_format=memory_format), images.contiguous(memory_format=memory_format)
    seconds: Dict[str, List[float]] = {name: [] for name in networks}
    for number in range(rounds + 1):
        for name, (network, inputs) in networks.items():
            start = time.process_time()
            network.zero_grad()
            cross_entropy(network(inputs), target).backward()
            if number:  # the first one warms up
                seconds[name].append(time.process_time() - start)
    pairs = zip(seconds["channels_last"], seconds["contiguous"])
    return {**case._asdict(), "batch": batch, "cpu": statistics.median(mine / base for mine, base in pairs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", type=Case.parse, default=CASES, metavar="NETWORK:WxCxS")
    parser.add_argument("--batch", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/training/images-cpu.json"), metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [measure(case, arguments.batch, arguments.rounds) for case in arguments.networks]
    print(f"{'channels_last / contiguous':<40}{'processor time':>16}")
    for row in rows:
        print(f"{'{network} of width {width}, {channels} x {side} x {side}'.format(**row):<40}{row['cpu']:>16.2f}")
    machine = f"{arguments.threads} threads"
    write_json(
        arguments.out,
        {"torch": torch.__version__, "python": platform.python_version(), "machine": machine, "rows": rows},
    )


if __name__ == "__main__":
    main()

"""Speed and memory of whole fairseq trainings: LABO against label smoothing, on the same model, data and batches.

  python benchmarks/training.py                                  4 + 4 layers, a vocabulary of 10,000, on a CPU or a GPU
  python benchmarks/training.py model=transformer_base --vocabulary 40000 --updates 200
  python benchmarks/training.py --methods ls labo --rounds 5

The text is the Bible, German to English, which pip can fetch. In a round every method trains the same updates in a
fresh process; LABO without a smoothing warm-up, so that every update is one of its own. Distillation learns from a
model of the same size, cross-entropy's after one update.

speed    median over the rounds of (target tokens per second / those of fairseq's label smoothing in the same round), by
         fairseq's own count; of a round, the median of its log's intervals but for the first, which warms up.
memory   peak of the whole process: on a CPU the resident set, Python and the libraries included; on a GPU what torch's
         allocator gave out, which fairseq logs to a tenth of a GiB.

Absolute speeds are shown on a GPU alone.
"""

import argparse
import os
import platform
import resource
import statistics
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch
from tqdm import tqdm

from labo_fairseq.data.prepared_corpus import Prepared
from labo_fairseq.experiments.config import Config, for_machines, takes_teachers, to_yaml, with_paths
from labo_fairseq.experiments.machines import Machines
from labo_fairseq.experiments.recipes import compose, find, prepare_corpus
from labo_fairseq.files import write_json
from labo_fairseq.reporting.training_log import read_curves
from labo_fairseq.subprocesses import run_fairseq

BASE = "ls"
NO_WARMUP = "criterion.smoothing_warmup_steps=0"
FUSED = "criterion.fused_projection=true"
RDROP = "criterion.rdrop_alpha=5"
#: name → criterion, and settings of its own
METHODS: Dict[str, Tuple[str, Tuple[str, ...]]] = {
    BASE: ("ls", ()),
    "ce": ("ce", ()),
    "labo": ("labo", (NO_WARMUP,)),
    "labo, fused": ("labo", (NO_WARMUP, FUSED)),
    "cp": ("cp", ()),
    "fl": ("fl", ()),
    "afl": ("afl", ()),
    "kd": ("kd", ()),
    "ls-rdrop": ("ls-rdrop", ()),
    "ls-rdrop, fused": ("ls-rdrop", (FUSED,)),
    "labo-rdrop": ("labo", (NO_WARMUP, RDROP)),
    "labo-rdrop, fused": ("labo", (NO_WARMUP, RDROP, FUSED)),
}


class Measured(NamedTuple):
    speed: float  # target tokens per second
    memory: float  # MiB at the peak


@contextmanager
def configurations(
    methods: List[str], updates: int, data: Prepared, overrides: List[str]
) -> Iterator[Dict[str, Config]]:
    """What to train, by method: no validation, no checkpoints, nothing but updates. A teacher exists in the context."""
    with tempfile.TemporaryDirectory() as folder:
        teaching: Tuple[str, ...] = ()
        if any(takes_teachers(METHODS[method][0]) for method in methods):
            config = _configuration("ce", 1, overrides)
            config["checkpoint"]["no_save"] = False
            teaching = (f"criterion.teacher_path={_run(config, data, Path(folder)) / 'checkpoint_last.pt'}",)
        yield {method: _configuration(method, updates, overrides, teaching) for method in methods}


def _configuration(method: str, updates: int, overrides: List[str], teaching: Tuple[str, ...] = ()) -> Config:
    criterion, own = METHODS[method]
    own += teaching if takes_teachers(criterion) else ()
    bare = (
        *(f"optimization.max_update={updates}", f"common.log_interval={max(1, updates // 6)}"),
        *("dataset.disable_validation=true", "task.eval_bleu=false"),
        *("checkpoint.best_checkpoint_metric=loss", "dataset.max_tokens=4096", "model=transformer_small"),
    )
    # the accuracy that the configurations ask for costs another pass over the logits, of every method the same
    config = for_machines(compose(f"bible_de-en_{criterion}", [*bare, *own, *overrides]), Machines())
    config["checkpoint"]["no_save"] = True  # which compose() refuses for runs that are to be scored
    return config


def _run(config: Config, data: Prepared, folder: Path) -> Path:
    """The folder of the checkpoints of a training, whose log is ``folder/train.log``."""
    save = folder / "save"
    (folder / "training.yaml").write_text(to_yaml(with_paths(config, data, save)), encoding="utf-8")
    run_fairseq("hydra_train", ["--config-dir", str(folder), "--config-name", "training"], folder / "train.log")
    return save


def train_alone(config: Config, data: Prepared) -> Measured:
    """One training."""
    if torch.cuda.is_available():
        return train(config, data)
    with get_context("forkserver").Pool(1) as pool:
        return pool.apply(train, (config, data))


def train(config: Config, data: Prepared) -> Measured:
    """One training; on a CPU call it in a fresh process, whose children it accounts for."""
    with tempfile.TemporaryDirectory() as work:
        _run(config, data, Path(work))
        curves = read_curves(Path(work) / "train.log")["train"]
    speeds = [speed for _, speed in sorted(curves["wps"].items())]
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory / 2**20
        peak = total - 1024 * min(curves["gb_free"].values())
    else:
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    return Measured(statistics.median(speeds[1:]), peak)


def measure(configs: Dict[str, Config], data: Prepared, rounds: int) -> Iterator[List[Dict[str, Any]]]:
    """After every training what is known by then: a row per method that the baseline's rounds can be compared with."""
    measured: Dict[str, List[Measured]] = {method: [] for method in configs}
    with tqdm(total=rounds * len(configs), unit=" trainings") as bar:
        for _ in range(rounds):
            for method, config in configs.items():
                bar.set_description(method)
                measured[method].append(train_alone(config, data))
                bar.update()
                yield [_row(name, mine, measured[BASE]) for name, mine in measured.items() if mine]


def _row(method: str, mine: List[Measured], bases: List[Measured]) -> Dict[str, Any]:
    pairs = list(zip(mine, bases))
    row = {
        "method": method,
        "speed": statistics.median(one.speed / base.speed for one, base in pairs),
        "memory": statistics.median(one.memory / base.memory for one, base in pairs),
        "memory_mib": statistics.median(one.memory for one in mine),
        "rounds": [one._asdict() for one in mine],
    }
    if torch.cuda.is_available():
        row["tokens_per_second"] = statistics.median(one.speed for one in mine)
    return row


def table(rows: List[Dict[str, Any]]) -> str:
    columns = ["speed", "memory", "memory_mib", *(["tokens_per_second"] if "tokens_per_second" in rows[0] else [])]
    lines = [f"{'':<20}" + "".join(f"{column:>20}" for column in columns)]
    for row in rows:
        digits = (2 if column in ("speed", "memory") else 0 for column in columns)
        lines.append(f"{row['method']:<20}" + "".join(f"{row[c]:>20,.{d}f}" for c, d in zip(columns, digits)))
    return "\n".join(lines)


def prepare(vocabulary: int, folder: Optional[Path]) -> Prepared:
    setup = find("bible", "de-en")
    place = folder or Path("runs") / "benchmark" / f"data-{vocabulary}"
    return prepare_corpus(
        replace(setup, recipe=replace(setup.recipe, bpe_operations=vocabulary)), place, os.cpu_count() or 1
    )


def options(description: str, methods: List[str]) -> argparse.ArgumentParser:
    """The options that the programs share which train; ``methods`` are trained unless the user names others."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = {"choices": list(METHODS), "metavar": "METHOD", "help": f"of {', '.join(map(repr, METHODS))}"}
    parser.add_argument("--methods", nargs="+", default=methods, **choices)
    parser.add_argument("--vocabulary", type=int, default=10000, metavar="K", help="BPE merges (default: %(default)s)")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="to prepare the text in (default: below runs/benchmark)"
    )
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of the configuration, for every method")
    return parser


def main() -> None:
    parser = options(__doc__, list(METHODS))
    parser.add_argument("--updates", type=int, default=24, metavar="N", help="of each training (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("results/training/training.json"), metavar="FILE")
    arguments = parser.parse_intermixed_args()
    methods = [BASE, *(method for method in arguments.methods if method != BASE)]
    data = prepare(arguments.vocabulary, arguments.data)
    on_gpu = torch.cuda.is_available()
    with configurations(methods, arguments.updates, data, arguments.settings) as configs:
        setting = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} threads",
            "configuration": configs[BASE],
            "bpe_operations": arguments.vocabulary,
        }
        rows: List[Dict[str, Any]] = []
        for rows in measure(configs, data, arguments.rounds):  # a program that is stopped leaves what it has measured
            write_json(arguments.out, {**setting, "rows": rows})
    print(f"\n/ fairseq's label smoothing, {arguments.updates} updates, median of {arguments.rounds} rounds")
    print(table(rows))


if __name__ == "__main__":
    main()

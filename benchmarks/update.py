"""Where the time of an update goes: a whole fairseq training on a CPU under torch's profiler, operation by operation.

  python benchmarks/update.py                                    4 + 4 layers of width 128, a vocabulary of 10,000
  python benchmarks/update.py --methods ls labo --vocabulary 2000 dataset.max_tokens=2048

The text is the Bible, German to English, which pip can fetch. Every method trains the same updates in a fresh process.
An operation belongs to the first of these that fits:

  optimizer        of Adam, and of clipping the gradient's norm
  loss             of the criterion, forward and backward; with --fused-projection its matrix products too
  output layer     its matrix products, forward and backward
  other products   those of attention and feed-forward layers
  dropout, softmax, normalization, embedding
  element-wise     everything else that torch does: sums, masks, copies, activations
  Python           what is left of the time by the clock: fairseq, torch's own code, reading the batch

Shares are of the time by the clock of all updates under the profiler, which makes Python's look larger than it is.
"""

import os
import platform
import sys
import tempfile
import time
from collections import Counter
from functools import wraps
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional

import torch
from training import configurations, options, prepare

from labo_fairseq.data.prepared_corpus import Prepared
from labo_fairseq.experiments.config import Config, to_yaml, with_paths
from labo_fairseq.files import write_json
from labo_fairseq.reporting.figure import NO_FIGURE, legend_above, plain, save_png

OPTIMIZER, LOSS, OUTPUT, ELEMENTWISE, PYTHON = "optimizer", "loss", "output layer", "element-wise", "Python"
#: group → what the names of its operations begin with
OPERATIONS = {
    "other products": ("aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm", "aten::addbmm"),
    "dropout": ("aten::dropout", "aten::native_dropout", "aten::bernoulli"),
    "softmax": ("aten::softmax", "aten::_softmax"),
    "normalization": ("aten::layer_norm", "aten::native_layer_norm"),
    "embedding": ("aten::embedding", "aten::index_select"),
}
GROUPS = (LOSS, OUTPUT, *OPERATIONS, ELEMENTWISE, OPTIMIZER, PYTHON)
COLORS = ("#D55E00", "#E69F00", "#0072B2", "#56B4E9", "#009E73", "#8FD3BD", "#CC79A7", "#F0E442", "#999999", "#DDDDDD")
_MODEL = "model"


def profile(config: Config, data: Prepared, warm: int) -> Dict[str, float]:
    """Share of the time of an update by group; call it in a fresh process.

    Args:
        warm: updates that come before those which are profiled.
    """
    from fairseq.trainer import Trainer

    from labo_fairseq.hydra_train import main as train

    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
    seconds: List[float] = []
    train_step = Trainer.train_step

    def timed(trainer: Any, *arguments: Any, **options: Any) -> Any:
        if trainer.get_num_updates() == warm:
            trainer.criterion.forward = _in_range(LOSS, trainer.criterion.forward)
            trainer.model.forward = _in_range(_MODEL, trainer.model.forward)
            trainer.model.decoder.output_layer = _in_range(OUTPUT, trainer.model.decoder.output_layer)
            trainer.clip_grad_norm = _in_range(OPTIMIZER, trainer.clip_grad_norm)
            profiler.start()
        start = time.perf_counter()
        done = train_step(trainer, *arguments, **options)
        if trainer.get_num_updates() > warm:
            seconds.append(time.perf_counter() - start)
        return done

    Trainer.train_step = timed
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "training.yaml").write_text(to_yaml(with_paths(config, data, Path(work))), encoding="utf-8")
        sys.argv = ["fairseq-hydra-train", "--config-dir", work, "--config-name", "training"]
        log = os.open(Path(work) / "train.log", os.O_RDWR | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(log, stream)
        try:
            train()
        except SystemExit:  # which a process of a pool does not survive
            raise RuntimeError((Path(work) / "train.log").read_text(encoding="utf-8")[-3000:]) from None
    profiler.stop()
    return shares(profiler.events(), sum(seconds))


def _in_range(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, whose operations are found below ``name`` in the profile."""

    @wraps(function)
    def ranged(*arguments: Any, **options: Any) -> Any:
        with torch.profiler.record_function(name):
            return function(*arguments, **options)

    return ranged


def shares(events: Iterable[Any], seconds: float) -> Dict[str, float]:
    """Of ``seconds`` by the clock, the part of each group; they sum to 1."""
    events = list(events)
    # an operation of the backward pass has the number of the one that it is the derivative of
    forward: Dict[int, str] = {}
    for event in events:
        group = _range_of(event)
        if group and event.sequence_nr >= 0:
            forward.setdefault(event.sequence_nr, group)
    total: Counter = Counter()
    for event in events:
        group = _group(event, forward)
        if group:
            total[group] += event.self_cpu_time_total / 1e6 / seconds
    return {**{name: total[name] for name in GROUPS}, PYTHON: 1 - sum(total.values())}


def _lineage(event: Any) -> Iterable[Any]:
    while event is not None:
        yield event
        event = event.cpu_parent


def _range_of(event: Any) -> Optional[str]:
    """The innermost range that an event is in; that of the loss ends where the model begins."""
    for one in _lineage(event):
        if one.name in (OUTPUT, OPTIMIZER, LOSS):
            return str(one.name)
        if one.name.startswith("Optimizer."):
            return OPTIMIZER
        if one.name == _MODEL:
            return None
    return None


def _group(event: Any, forward: Dict[int, str]) -> Optional[str]:
    """None for what is no operation, which counts as Python's."""
    if "::" not in event.name or event.name.startswith("autograd::"):
        return None
    backward = (forward.get(one.sequence_nr) for one in _lineage(event) if one.name.startswith("autograd::engine"))
    group = _range_of(event) or next(filter(None, backward), None)
    if group:
        return group
    for one in _lineage(event):
        for name, beginnings in OPERATIONS.items():
            if one.name.startswith(beginnings):
                return name
    return ELEMENTWISE


def table(rows: List[Dict[str, Any]]) -> str:
    lines = [f"{'%':<16}" + "".join(f"{row['method']:>14}" for row in rows)]
    lines += [f"{name:<16}" + "".join(f"{100 * row['shares'][name]:>14.1f}" for row in rows) for name in GROUPS]
    return "\n".join(lines)


def paint(figure: Any, rows: List[Dict[str, Any]]) -> None:
    """A bar for each method."""
    axes = figure.subplots()
    left = [0.0] * len(rows)
    names = [row["method"] for row in rows]
    for name, color in zip(GROUPS, COLORS):
        widths = [100 * row["shares"][name] for row in rows]
        axes.barh(names, widths, left=left, color=color, label=name)
        left = [start + width for start, width in zip(left, widths)]
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("time of an update (%)")
    plain(axes, "x")
    legend_above(figure)


def main() -> None:
    parser = options(__doc__, ["ls", "labo", "labo, fused"])
    parser.add_argument("--updates", type=int, default=10, metavar="N", help="that are profiled (default: %(default)s)")
    parser.add_argument("--warm", type=int, default=5, metavar="N", help="updates before them (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/training/update.json"), metavar="FILE")
    arguments = parser.parse_intermixed_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # operations of a GPU end after those that start them
    data = prepare(arguments.vocabulary, arguments.data)
    updates, settings = arguments.warm + arguments.updates, ["dataset.num_workers=0", *arguments.settings]
    rows = []
    with configurations(arguments.methods, updates, data, settings) as configs:
        for method, config in configs.items():
            with get_context("forkserver").Pool(1) as pool:
                rows.append({"method": method, "shares": pool.apply(profile, (config, data, arguments.warm))})
    print(table(rows))
    write_json(
        arguments.out,
        {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": f"{torch.get_num_threads()} threads",
            "configuration": configs[arguments.methods[0]],
            "bpe_operations": arguments.vocabulary,
            "rows": rows,
        },
    )
    if not save_png(arguments.out.with_suffix(".png"), (10, 1.2 + 0.5 * len(rows)), lambda figure: paint(figure, rows)):
        print(NO_FIGURE, file=sys.stderr)


if __name__ == "__main__":
    main()

"""One run: train, translate the test sets, score. A step whose output is complete is not repeated."""

import json
import os
import resource
import statistics
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional

from tqdm import tqdm

from ..checkpoints import load_checkpoint, recover_checkpoints
from ..errors import UserError
from ..evaluation.evaluate import evaluate
from ..evaluation.generate import Decoding
from ..evaluation.runs import Run, TranslationCost, TranslationResult
from ..files import locked, make_folder, write_json
from ..reporting.training_log import parse_record, read_curves
from ..subprocesses import peak_memory_mib, run_module
from .config import for_machines, to_yaml, with_paths
from .machines import Machines
from .run_directory import claim, empty, refuse_foreign, versions

#: in a line of a log that a user is to see: a warning of ours
_WARNING = " | WARNING | labo_fairseq"

#: what may lie in the folder of a run
_MADE = (
    *("checkpoints", "translations", "evaluations", "analysis", "train.log", "hydra_train.log"),
    *("training.yaml", "training.json", "training.png", "result.json", "settings.json"),
)


def complete(run: Run, machines: Optional[Machines] = None, fresh: bool = False) -> TranslationResult:
    """Do what is still to do of ``run``, from the last checkpoint on if it was killed.

    Args:
        machines: what to train on; None: all GPUs that are here, or the CPU.
        fresh: start over.

    Returns:
        What ``result.json`` holds.

    Raises:
        UserError: the folder holds a run with other settings or the user's own files, or is in use; fairseq fails.
    """
    with locked(run.folder):
        refuse_foreign(run.folder)
        if fresh:
            empty(run.folder, _MADE)
        claim(run.folder, run.settings())
        if not run.result.exists():
            made = recover_checkpoints(run.checkpoints)
            training = _train(run, machines or Machines(), made)
            if not run.checkpoint.exists():
                raise UserError(f"{run.checkpoint} is lost, and no copy of it is left: start over with --fresh")
            evaluation = evaluate(run, run.checkpoint, Decoding(), run.folder / "translations")
            data = os.path.relpath(run.data.folder, run.folder)
            TranslationResult(run.settings(), versions(), training, evaluation, data).write(run.result)
        return TranslationResult.read(run.result)


def join(run: Run, machines: Machines) -> None:
    """Train as one of several nodes, of which node 0 completes the run; nothing where there is nothing to train.

    The nodes share the file system. This one writes a log and a configuration in a hidden folder of its own.

    Raises:
        UserError: fairseq fails, here or on another node.
    """
    if not (run.folder / "training.json").exists():
        last = run.checkpoints / "checkpoint_last.pt"
        made = load_checkpoint(last)["optimizer_history"][-1]["num_updates"] if last.exists() else 0
        folder = run.folder / f".node{machines.node}"
        make_folder(folder)
        # its workers leave the progress to those of node 0
        _update(run, machines, made, folder, folder / "train.log")


def _train(run: Run, machines: Machines, made: int) -> TranslationCost:
    done = run.folder / "training.json"
    if not done.exists():
        with _progress(run) as watch:
            _update(run, machines, made, run.folder, run.log, watch)
        logged = read_curves(run.log)["train"]
        speeds = list(logged.get("wps", {}).values())
        cost = TranslationCost(
            # fairseq's own count, which continues where a run resumes
            seconds=max(logged.get("wall", {}).values(), default=None),
            target_tokens_per_second=statistics.median(speeds) if speeds else None,
            peak_memory_mib=peak_memory_mib(resource.RUSAGE_CHILDREN),
        )
        write_json(done, asdict(cost))
    return TranslationCost.from_json(json.loads(done.read_text(encoding="utf-8")))


def _update(
    run: Run, machines: Machines, made: int, folder: Path, log: Path, watch: Callable[[str], None] = lambda line: None
) -> None:
    """Make the updates that are left after ``made``, with a configuration in ``folder``."""
    config = with_paths(for_machines(run.config, machines), run.data, run.checkpoints)
    (folder / "training.yaml").write_text(to_yaml(config), encoding="utf-8")
    last = config["optimization"].get("max_update")
    # killed between its last update and its end: fairseq would make another update
    if last is not None and made >= last:
        return
    module = "labo_fairseq.hydra_train"
    options = ["--config-dir", str(folder.resolve()), "--config-name", "training"]
    if machines.nodes > 1:
        module, options = "labo_fairseq.torchrun", [*machines.torchrun(), "--module", module, *options]
    run_module("fairseq-hydra-train", module, options, log, watch, machines.environment())


@contextmanager
def _progress(run: Run) -> Iterator[Callable[[str], None]]:
    """A function that shows on a bar what the lines of a log say."""
    optimization = run.config["optimization"]
    measure, total, unit = ("update", optimization.get("max_epoch"), "epochs")
    if optimization.get("max_update") is not None:
        measure, total, unit = ("num_updates", optimization["max_update"], "updates")
    bar_format = "{desc}: {percentage:3.0f}%|{bar}| {n:.4g}/{total} {unit} [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=total, desc="train", unit=unit, bar_format=bar_format) as bar:
        yield lambda line: _show_progress(bar, line, measure)


def _show_progress(bar: tqdm, line: str, measure: str) -> None:
    record = parse_record(line)
    if record is None:
        _, warned, message = line.partition(_WARNING)
        if warned:
            bar.write(message.split(" | ", 1)[-1])
        return
    kind, values = record
    if kind == "train_inner":
        bar.update(max(0, values[measure] - bar.n))
        shown: Dict[str, Any] = {name: values[name] for name in ("ppl", "alpha") if name in values}
        bar.set_postfix({**shown, "tok/s": values.get("wps", 0)})
    elif kind == "valid":
        bleu = f", BLEU {values['valid_bleu']:.2f}" if "valid_bleu" in values else ""
        bar.write(f"  update {values['valid_num_updates']:.0f}: validation perplexity {values['valid_ppl']:.2f}{bleu}")
        if measure == "num_updates":
            bar.update(max(0, values["valid_num_updates"] - bar.n))
    elif kind == "train" and measure == "update":
        bar.update(max(0, values["epoch"] - bar.n))

"""One run: train, translate the test set, score. A step whose output is complete is not repeated."""

import json
import os
import platform
import re
import resource
import shutil
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from tqdm import tqdm

from ..commands import USER_DIR, run_fairseq
from ..data.prepare import Prepared
from ..errors import UserError
from ..evaluation.curves import parse_record, read_curves
from ..evaluation.scores import score
from ..files import locked, read_lines, whole_file, write_json, write_lines

_LOG_INTERVAL = 20  # updates between two lines of the log

# fairseq-fixed leaves out the last batch of a set, test sentences included, unless it fills a multiple of this
_WHOLE_SETS = ("--required-batch-size-multiple", "1")


@dataclass(frozen=True)
class Run:
    """What to train on which data, and where everything of it lies."""

    folder: Path
    data: Prepared
    source: str
    target: str
    updates: int
    save_interval: int  # updates between two checkpoints; ``updates`` is a multiple of it
    seed: int
    training: Tuple[str, ...]  # options of fairseq-train: architecture, optimisation, criterion
    beam: int = 5

    @property
    def log(self) -> Path:
        """fairseq's own log of the training, one JSON record a line."""
        return self.folder / "train.log"

    @property
    def checkpoint(self) -> Path:
        """The model after the last update."""
        return self.folder / "checkpoints" / "checkpoint_last.pt"

    @property
    def hypotheses(self) -> Path:
        """Detokenised translations of the test set, one a line."""
        return self.folder / f"hypotheses.{self.target}"

    @property
    def result(self) -> Path:
        """Settings, versions, cost and scores; there when the run is complete."""
        return self.folder / "result.json"

    def settings(self) -> Dict[str, Any]:
        """What tells this run from another."""
        return {
            "data": self.data.recipe,
            "updates": self.updates,
            "seed": self.seed,
            "training": list(self.training),
            "beam": self.beam,
        }

    def complete(self, fresh: bool = False) -> Dict[str, Any]:
        """Do what is still to do, from the last checkpoint on if the run was killed.

        Returns:
            What :attr:`result` holds.

        Raises:
            UserError: the folder holds a run with other settings, or is in use; fairseq fails.
        """
        with locked(self.folder):
            if fresh:
                _empty(self.folder)
            self._claim()
            if not self.result.exists():
                training = self._train()
                self._translate()
                scores = score(list(read_lines(self.hypotheses)), list(read_lines(self.data.raw("test", self.target))))
                write_json(
                    self.result,
                    {
                        "settings": self.settings(),
                        "data": os.path.relpath(self.data.folder, self.folder),
                        "checkpoint": os.path.relpath(self.checkpoint, self.folder),
                        "versions": versions(),
                        "training": training,
                        "scores": [each.to_json() for each in scores],
                    },
                )
            return json.loads(self.result.read_text(encoding="utf-8"))

    def _claim(self) -> None:
        """Write the settings down, or compare them with those of the run that was begun here."""
        path, mine = self.folder / "settings.json", self.settings()
        if not path.exists():
            write_json(path, mine)
            return
        theirs = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in mine if mine[name] != theirs.get(name)]
        if differing:
            raise UserError(
                f"{self.folder} holds a run with another {', '.join(differing)}: choose another folder or name, "
                "or start over with --fresh"
            )

    def _train(self) -> Dict[str, Any]:
        done = self.folder / "training.json"
        if not done.exists():
            restored, update = self._newest_checkpoint()
            arguments = [
                *(str(self.data.binarised), "--user-dir", USER_DIR, "--task", "translation"),
                *("--source-lang", self.source, "--target-lang", self.target),
                *("--save-dir", str(self.checkpoint.parent), "--seed", str(self.seed)),
                *("--max-update", str(self.updates), "--no-epoch-checkpoints", "--keep-interval-updates", "1"),
                *("--save-interval-updates", str(self.save_interval)),
                *("--validate-interval-updates", str(self.save_interval), "--best-checkpoint-metric", "nll_loss"),
                *("--log-format", "json", "--log-interval", str(_LOG_INTERVAL)),
                *_WHOLE_SETS,
                *self.training,
            ]
            if restored is not None:
                # not checkpoint_last.pt: fairseq makes it by copying, and a kill can leave half a copy
                arguments += ["--restore-file", str(restored)]
            with tqdm(total=self.updates, initial=update, desc="train", unit=" updates") as bar:
                run_fairseq("train", arguments, self.log, lambda line: _show_progress(bar, line))
                bar.update(self.updates - bar.n)
            speeds = list(read_curves(self.log)["train"].get("wps", {}).values())
            write_json(
                done,
                {
                    "target_tokens_per_second": statistics.median(speeds) if speeds else None,
                    "peak_memory_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
                    // (1 << 20 if sys.platform == "darwin" else 1 << 10),
                },
            )
        return json.loads(done.read_text(encoding="utf-8"))

    def _newest_checkpoint(self) -> Tuple[Optional[Path], int]:
        """The interval checkpoint of the latest update, which fairseq writes whole or not at all."""
        found = {}
        for path in self.checkpoint.parent.glob("checkpoint_*.pt"):
            match = re.fullmatch(r"checkpoint_\d+_(\d+)\.pt", path.name)
            if match:
                found[int(match.group(1))] = path
        return (found[max(found)], max(found)) if found else (None, 0)

    def _translate(self) -> None:
        if self.hypotheses.exists():
            return
        lines = sum(1 for _ in read_lines(self.data.raw("test", self.target)))
        hypotheses: Dict[int, str] = {}
        log = self.folder / "generate.log"
        if log.exists():
            log.unlink()
        with tqdm(total=lines, desc="translate", unit=" sentences") as bar:

            def watch(line: str) -> None:
                if line.startswith("D-"):
                    name, _, text = line.split("\t", 2)
                    hypotheses[int(name[2:])] = text
                    bar.update()

            run_fairseq(
                "generate",
                [
                    *decoding_options(self.data, self.checkpoint, self.source, self.target, self.beam),
                    *("--gen-subset", "test", "--max-tokens", "4096", *_WHOLE_SETS),
                ],
                log,
                watch,
            )
        if len(hypotheses) != lines:
            raise UserError(f"fairseq-generate translated {len(hypotheses)} of {lines} lines; see {log}")
        with whole_file(self.hypotheses) as part:
            write_lines(part, (hypotheses[number] for number in range(lines)))


def decoding_options(data: Prepared, checkpoint: Path, source: str, target: str, beam: int) -> List[str]:
    """Options that ``fairseq-generate`` and ``fairseq-interactive`` share: raw text in and out."""
    return [
        *(str(data.binarised), "--user-dir", USER_DIR, "--task", "translation", "--path", str(checkpoint)),
        *("--source-lang", source, "--target-lang", target, "--beam", str(beam)),
        *("--tokenizer", "moses", "--moses-no-escape", "--bpe", "subword_nmt", "--bpe-codes", str(data.codes)),
    ]


def versions() -> Dict[str, str]:
    """Versions that a result depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("labo-fairseq", "fairseq", "fairseq-fixed", "torch", "sacrebleu", "subword-nmt", "sacremoses"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # one of the two fairseqs
            continue
    return found


def _show_progress(bar: tqdm, line: str) -> None:
    record = parse_record(line)
    if record is None:
        return
    kind, values = record
    if kind == "train_inner":
        bar.update(int(values["num_updates"]) - bar.n)
        shown = {name: values[name] for name in ("ppl", "alpha") if name in values}
        bar.set_postfix({**shown, "tok/s": values.get("wps", 0)})
    elif kind == "valid":
        bar.write(f"  update {values['valid_num_updates']:.0f}: validation perplexity {values['valid_ppl']:.2f}")


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()

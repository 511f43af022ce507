"""One run: train, translate the test sets, score. A step whose output is complete is not repeated."""

import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from tqdm import tqdm

from ..checkpoints import load_checkpoint
from ..commands import run_fairseq
from ..data.prepared_corpus import Prepared
from ..data.types import Pair
from ..errors import UserError
from ..evaluation.average_checkpoints import average_checkpoints, newest_checkpoints
from ..evaluation.generate import Decoding, translate_test
from ..evaluation.metrics import score_translations
from ..evaluation.training_log import parse_record, read_curves
from ..files import locked, write_json
from .checkpoint_recovery import recover_checkpoints
from .config import Config, for_machine, to_yaml, with_paths

BEST, LAST = "best", "last"

#: what may lie in the folder of a run
_MADE = (
    *("checkpoints", "translations", "evaluations", "analysis", "train.log", "hydra_train.log"),
    *("training.yaml", "training.json", "training.png", "result.json", "settings.json"),
)


@dataclass(frozen=True)
class Run:
    """What to train on which data, and where everything of it lies."""

    folder: Path
    data: Prepared
    directions: Tuple[Pair, ...]  # one, or several in a multilingual model
    config: Config  # for fairseq-hydra-train, without paths and whatever depends on the machine
    checkpoint_name: str = BEST  # or LAST: which is scored

    @property
    def log(self) -> Path:
        """fairseq's own log of the training, one JSON record a line."""
        return self.folder / "train.log"

    @property
    def checkpoints(self) -> Path:
        """fairseq's ``save_dir``."""
        return self.folder / "checkpoints"

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that is scored."""
        return self.checkpoints / f"checkpoint_{self.checkpoint_name}.pt"

    @property
    def result(self) -> Path:
        """Settings, versions, cost and scores; there when the run is complete."""
        return self.folder / "result.json"

    def translation(self, test: str, direction: Pair) -> Path:
        """Detokenised translations of a test set, one a line."""
        return self.folder / "translations" / f"{self.data.split(test, *direction)}.{direction[1]}"

    def settings(self) -> Dict[str, Any]:
        """What tells this run from another."""
        return {
            "data": self.data.recipe,
            "files": self.data.digests,
            "directions": [list(direction) for direction in self.directions],
            "config": self.config,
            "checkpoint": self.checkpoint_name,
        }

    def complete(self, gpus: Optional[int] = None, fresh: bool = False) -> Dict[str, Any]:
        """Do what is still to do, from the last checkpoint on if the run was killed.

        Args:
            gpus: how many to train on, see :func:`for_machine`; of no influence on what is computed.
            fresh: start over.

        Returns:
            What :attr:`result` holds.

        Raises:
            UserError: the folder holds a run with other settings or the user's own files, or is in use; fairseq fails.
        """
        with locked(self.folder):
            self._refuse_foreign()
            if fresh:
                _empty(self.folder)
            self._claim()
            if not self.result.exists():
                made = recover_checkpoints(self.checkpoints)
                training = self._train(gpus, made)
                if not self.checkpoint.exists():
                    raise UserError(f"{self.checkpoint} is lost, and no copy of it is left: start over with --fresh")
                write_json(
                    self.result,
                    {
                        "settings": self.settings(),
                        "data": os.path.relpath(self.data.folder, self.folder),
                        "versions": versions(),
                        "training": training,
                        "evaluation": evaluate(self, self.checkpoint, Decoding(), self.folder / "translations"),
                    },
                )
            return json.loads(self.result.read_text(encoding="utf-8"))

    def _refuse_foreign(self) -> None:
        """UserError where files lie here that belong to no run."""
        if not (self.folder / "settings.json").exists():
            foreign = sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))
            if foreign:
                raise UserError(f"{self.folder} holds {foreign[0]} and no run: choose another folder or name")

    def _claim(self) -> None:
        """Write the settings down, or compare them with those of the run that was begun here."""
        path, mine = self.folder / "settings.json", self.settings()
        if not path.exists():
            write_json(path, mine)
            return
        theirs = _read_json(path)
        theirs.setdefault("files", mine["files"])  # a run of a version that did not write them down
        differing = sorted(differences(mine, theirs))
        if differing:
            raise UserError(
                f"{self.folder} holds a run with another {', '.join(differing)}: choose another folder or name, "
                "or start over with --fresh"
            )

    def _train(self, gpus: Optional[int], made: int) -> Dict[str, Any]:
        done = self.folder / "training.json"
        if not done.exists():
            config = with_paths(for_machine(self.config, gpus), self.data, self.checkpoints)
            (self.folder / "training.yaml").write_text(to_yaml(config), encoding="utf-8")
            last = config["optimization"].get("max_update")
            # killed between its last update and its end: fairseq would make another update
            if last is None or made < last:
                self._update(last, config["optimization"].get("max_epoch"))
            logged = read_curves(self.log)["train"]
            speeds = list(logged.get("wps", {}).values())
            write_json(
                done,
                {
                    # fairseq's own count, which goes on where a run is taken up again
                    "seconds": max(logged.get("wall", {}).values(), default=None),
                    "target_tokens_per_second": statistics.median(speeds) if speeds else None,
                    "peak_memory_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
                    // (1 << 20 if sys.platform == "darwin" else 1 << 10),
                },
            )
        return json.loads(done.read_text(encoding="utf-8"))

    def _update(self, max_update: Optional[int], max_epoch: Optional[int]) -> None:
        measure, total, unit = ("update", max_epoch, "epochs")
        if max_update is not None:
            measure, total, unit = ("num_updates", max_update, "updates")
        bar_format = "{desc}: {percentage:3.0f}%|{bar}| {n:.4g}/{total} {unit} [{elapsed}<{remaining}{postfix}]"
        with tqdm(total=total, desc="train", unit=unit, bar_format=bar_format) as bar:
            run_fairseq(
                "hydra_train",
                ["--config-dir", str(self.folder.resolve()), "--config-name", "training"],
                self.log,
                lambda line: _show_progress(bar, line, measure),
            )


def load_run(folder: Path) -> Run:
    """The finished run in ``folder``.

    Raises:
        UserError: there is none, or its data is not what it was trained on.
    """
    path = folder / "result.json"
    if not path.exists():
        raise UserError(f"no finished run in {folder}: its {path.name} is not there")
    result = _read_json(path)
    settings = result["settings"]
    data = Prepared(folder / result["data"])
    data.check(settings["data"], settings.get("files"))
    directions = tuple(tuple(direction) for direction in settings["directions"])
    return Run(folder, data, directions, settings["config"], settings["checkpoint"])


def evaluate(run: Run, checkpoint: Path, decoding: Decoding, folder: Path) -> Dict[str, Any]:
    """Scores of ``checkpoint`` on every test set in every direction; the translations are kept in ``folder``."""
    tests: Dict[str, List[Dict[str, Any]]] = {}
    for source, target in run.directions:
        for test in run.data.tests:
            name = run.data.split(test, source, target)
            output = folder / f"{name}.{target}"
            tokens = translate_test(run.data, checkpoint, source, target, test, decoding, output)
            tests[name] = [each.to_json() for each in score_translations(run.data, name, target, output, tokens)]
    return {"checkpoint": checkpoint.name, **asdict(decoding), "tests": tests}


def evaluate_again(run: Run, checkpoint_name: str, average: Optional[int], decoding: Decoding) -> Dict[str, Any]:
    """Scores of a finished run with another checkpoint or another search, kept beside the first ones.

    Args:
        checkpoint_name: ``"best"`` or ``"last"``.
        average: of so many newest checkpoints instead.

    Raises:
        UserError: that checkpoint is not there or damaged, or fairseq fails.
    """
    name = checkpoint_name if average is None else f"average{average}"
    checkpoint = run.checkpoints / f"checkpoint_{name}.pt"
    with locked(run.folder):
        if average is not None and not checkpoint.exists():
            average_checkpoints(newest_checkpoints(run.checkpoints, average), checkpoint)
        if not checkpoint.exists():
            raise UserError(f"{checkpoint} is not there")
        load_checkpoint(checkpoint)  # says in one line what fairseq would say in fifty
        folder = run.folder / "evaluations" / f"{name}-beam{decoding.beam}-lenpen{decoding.lenpen:g}"
        if not (folder / "scores.json").exists():
            write_json(folder / "scores.json", evaluate(run, checkpoint, decoding, folder))
        return json.loads((folder / "scores.json").read_text(encoding="utf-8"))


def versions() -> Dict[str, str]:
    """Versions that a result depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    revision = _revision()
    if revision:
        found["revision"] = revision
    for package in ("labo-fairseq", "fairseq", "fairseq-fixed", "torch", "sacrebleu", "subword-nmt", "sacremoses"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # one of the two fairseqs
            continue
    return found


def _revision() -> str:
    """The git commit of the checkout that runs, with a ``+`` where files of it were changed; empty elsewhere."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return ""
    git = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(git, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8").stdout.strip()
    except OSError:  # no git here
        return ""


def _show_progress(bar: tqdm, line: str, measure: str) -> None:
    record = parse_record(line)
    if record is None:
        return
    kind, values = record
    if kind == "train_inner":
        bar.update(max(0, values[measure] - bar.n))
        shown = {name: values[name] for name in ("ppl", "alpha") if name in values}
        bar.set_postfix({**shown, "tok/s": values.get("wps", 0)})
    elif kind == "valid":
        bleu = f", BLEU {values['valid_bleu']:.2f}" if "valid_bleu" in values else ""
        bar.write(f"  update {values['valid_num_updates']:.0f}: validation perplexity {values['valid_ppl']:.2f}{bleu}")
    elif kind == "train" and measure == "update":
        bar.update(max(0, values["epoch"] - bar.n))


def differences(mine: Any, theirs: Any, name: str = "") -> List[str]:
    """Dotted names of the settings in which two JSON values differ."""
    if not (isinstance(mine, dict) and isinstance(theirs, dict)):
        return [] if mine == theirs else [name]
    prefix = f"{name}." if name else ""
    return [
        found for key in {*mine, *theirs} for found in differences(mine.get(key), theirs.get(key), f"{prefix}{key}")
    ]


def _read_json(path: Path) -> Dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not found or not isinstance(found, dict):
        raise UserError(f"{path} is damaged: put it back, or delete the folder and make the run again")
    return found


def _empty(folder: Path) -> None:
    """Delete what a run makes, and nothing else; that it is a run is forgotten last."""
    for name in _MADE:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()

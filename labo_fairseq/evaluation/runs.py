"""One run on disk, seen by those who read it: where its files lie, what it was trained on, what came of it."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Type, TypeVar

from ..data.prepared_corpus import Prepared
from ..data.types import Pair
from ..errors import UserError
from ..files import digest_of, read_lines, write_json
from .generate import Decoding, tokens_of
from .metrics import Score, Texts, Translation

BEST, LAST = "best", "last"


@dataclass(frozen=True)
class TrainingCost:
    """What a training took."""

    seconds: Optional[float]  # None where the log does not say it
    peak_memory_mib: int  # of one process


@dataclass(frozen=True)
class TranslationCost(TrainingCost):
    """What the training of a translator took."""

    target_tokens_per_second: Optional[float]  # median; None where the log does not say it

    @classmethod
    def from_json(cls, value: Dict[str, Any]) -> "TranslationCost":
        # the first runs were not timed
        return cls(value.get("seconds"), value["peak_memory_mib"], value.get("target_tokens_per_second"))


@dataclass(frozen=True)
class Evaluation:
    """Scores of one checkpoint."""

    checkpoint: str  # name of its file
    tests: Dict[str, List[Score]]  # by the name of the test set, or of its files

    def tests_to_json(self) -> Dict[str, List[Dict[str, Any]]]:
        """:attr:`tests` as :func:`read_scores` takes them."""
        return {test: [score.to_json() for score in scores] for test, scores in self.tests.items()}


@dataclass(frozen=True)
class TranslationEvaluation(Evaluation):
    """Scores of one checkpoint with one search."""

    decoding: Decoding

    def to_json(self) -> Dict[str, Any]:
        return {"checkpoint": self.checkpoint, **self.decoding.to_json(), "tests": self.tests_to_json()}

    @classmethod
    def from_json(cls, value: Dict[str, Any]) -> "TranslationEvaluation":
        return cls(value["checkpoint"], read_scores(value["tests"]), Decoding.from_json(value))


def read_scores(tests: Dict[str, List[Dict[str, Any]]]) -> Dict[str, List[Score]]:
    """Test set → scores, out of a JSON object."""
    return {test: [Score(**score) for score in scores] for test, scores in tests.items()}


_Result = TypeVar("_Result", bound="RunResult")


@dataclass(frozen=True)
class RunResult:
    """What a finished run of any kind has to say: the content of its ``result.json``."""

    settings: Dict[str, Any]  # see RunFolder.settings
    versions: Dict[str, str]
    training: TrainingCost
    evaluation: Evaluation

    @classmethod
    def read(cls: Type[_Result], path: Path) -> _Result:
        """What ``path`` holds, whatever version of this program wrote it, as an object of this class.

        Raises:
            UserError: it is damaged.
        """
        value = read_json(path)
        try:
            return cls.from_json(value)
        except (AttributeError, KeyError, TypeError):
            raise _damaged(path) from None

    @classmethod
    def from_json(cls: Type[_Result], value: Dict[str, Any]) -> _Result:
        training, evaluation = value["training"], value["evaluation"]
        return cls(
            value["settings"],
            value["versions"],
            TrainingCost(training.get("seconds"), training["peak_memory_mib"]),
            Evaluation(evaluation["checkpoint"], read_scores(evaluation["tests"])),
        )


@dataclass(frozen=True)
class TranslationResult(RunResult):
    """What a finished translation run has to say."""

    training: TranslationCost
    evaluation: TranslationEvaluation
    data: str  # the prepared corpus, relative to the run's folder

    @classmethod
    def from_json(cls, value: Dict[str, Any]) -> "TranslationResult":
        training = TranslationCost.from_json(value["training"])
        evaluation = TranslationEvaluation.from_json(value["evaluation"])
        return cls(value["settings"], value["versions"], training, evaluation, value["data"])

    def write(self, path: Path) -> None:
        """Write ``path``, which is complete or absent."""
        training, evaluation = asdict(self.training), self.evaluation.to_json()
        write_json(path, {**vars(self), "training": training, "evaluation": evaluation})


@dataclass(frozen=True)
class RunFolder:
    """A run of any kind: where everything of it lies, and its configuration."""

    folder: Path
    config: Dict[str, Any]  # without paths and whatever depends on the machine

    @property
    def log(self) -> Path:
        """What the training said, one JSON record per line."""
        return self.folder / "train.log"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def result(self) -> Path:
        """Settings, versions, cost and scores; there when the run is complete."""
        return self.folder / "result.json"


@dataclass(frozen=True)
class Run(RunFolder):
    """A translator that is trained with a configuration for ``fairseq-hydra-train``."""

    data: Prepared
    directions: Tuple[Pair, ...]  # one, or several in a multilingual model
    checkpoint_name: str = BEST  # or LAST: which is scored

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that is scored."""
        return self.checkpoints / f"checkpoint_{self.checkpoint_name}.pt"

    def existing_checkpoint(self) -> Path:
        """:attr:`checkpoint`.

        Raises:
            UserError: it is gone.
        """
        if not self.checkpoint.exists():
            raise UserError(f"{self.checkpoint} is not there")
        return self.checkpoint

    def hypotheses(self, test: str, direction: Pair) -> Path:
        """Detokenized translations of a test set, one per line."""
        return self.folder / "translations" / f"{self.data.split(test, *direction)}.{direction[1]}"

    def is_validation(self, test: str, direction: Pair) -> bool:
        """Whether what is scored as a test set is the validation set."""
        sides = [
            [self.data.raw(self.data.split(split, *direction), language) for language in direction]
            for split in (test, "valid")
        ]
        return all(path.exists() for path in sides[1]) and all(digest_of(a) == digest_of(b) for a, b in zip(*sides))

    def translated(self, test: str, direction: Pair) -> Translation:
        """A test set and its translation by this run."""
        return read_translation(self.data, test, direction, self.hypotheses(test, direction))

    def settings(self) -> Dict[str, Any]:
        """What tells this run from another."""
        return {
            "data": self.data.recipe,
            "files": self.data.digests,
            "directions": [list(direction) for direction in self.directions],
            "config": self.config,
            "checkpoint": self.checkpoint_name,
        }


def is_image_run(folder: Path) -> bool:
    """Whether ``folder`` holds a finished run on images.

    Raises:
        UserError: its result is damaged.
    """
    path = folder / "result.json"
    value: Any = read_json(path) if path.is_file() else None
    for key in ("settings", "config", "dataset"):
        value = value.get(key) if isinstance(value, dict) else None
    # in fairseq's configurations "dataset" is a group of settings
    return isinstance(value, str)


def load_run(folder: Path) -> Run:
    """The finished translation run in ``folder``.

    Raises:
        UserError: there is none, or its data is not what it was trained on.
    """
    path = folder / "result.json"
    if not path.exists():
        raise UserError(f"no finished run in {folder}: its {path.name} is not there")
    if is_image_run(folder):
        raise UserError(f"{folder} holds a run on images: this command is for translation runs")
    result = TranslationResult.read(path)
    settings = result.settings
    data = Prepared((folder / result.data).resolve())
    data.check(settings["data"], settings.get("files"))
    directions = tuple((source, target) for source, target in settings["directions"])
    return Run(folder, settings["config"], data, directions, settings["checkpoint"])


def newest_run(folder: Path) -> Run:
    """The translation run below ``folder`` (or ``folder`` itself) that was completed last.

    Raises:
        UserError: there is none.
    """
    results = sorted(folder.rglob("result.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for place in (path.parent for path in results):
        # runs on images may lie beside it; one that is named is refused with the reason
        if place == folder or not is_image_run(place):
            return load_run(place)
    raise UserError(f"no finished run in {folder}: train one with 'labo-fairseq run bible de-en', or name its folder")


def direction_of(run: Run, source: str = "") -> Pair:
    """The direction of ``run`` that starts from ``source``; its first one if that is empty.

    Raises:
        UserError: it has none from there.
    """
    matching = [direction for direction in run.directions if source in ("", direction[0])]
    if not matching:
        sources = ", ".join(direction[0] for direction in run.directions)
        raise UserError(f"{run.folder} does not translate from {source!r}: choose from {sources}")
    return matching[0]


def runs_by_name(runs: Sequence[Run]) -> Dict[str, Run]:
    """``runs`` by what they are called, see :func:`names_of`.

    Raises:
        UserError: a run is there twice, or they were trained on different data.
    """
    refuse_unlike(runs)
    return dict(zip(names_of([run.folder for run in runs]), runs))


def names_of(folders: Sequence[Path]) -> List[str]:
    """What runs are called by their folders: the names of these, or where they are alike, paths as short as can be.

    Raises:
        UserError: a run is there twice.
    """
    refuse_repeated(folders)
    paths = [folder.resolve() for folder in folders]
    short = [path.name for path in paths]
    if len(set(short)) == len(short):
        return short
    # a run may lie in the folder of another one
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    return [path.relative_to(shared).as_posix() for path in paths]


def refuse_repeated(folders: Sequence[Path]) -> None:
    """UserError where a run is named twice."""
    paths = [folder.resolve() for folder in folders]
    for folder, path in zip(folders, paths):
        if paths.count(path) > 1:
            raise UserError(f"the run {folder} is named twice: name another one")


def refuse_unlike(runs: Sequence[Run]) -> None:
    """UserError where ``runs`` were trained on different data or in different directions."""
    first = runs[0]
    for run in runs[1:]:
        if run.data.recipe != first.data.recipe or run.directions != first.directions:
            raise UserError(
                f"{run.folder} and {first.folder} were trained on different data or in different directions"
            )


def read_translation(data: Prepared, test: str, direction: Pair, output: Path) -> Translation:
    """A test set of ``data`` with the detokenized translation ``output`` and the tokens in the file next to it."""
    source, target = direction
    name = data.split(test, source, target)
    raw = Texts(*(list(read_lines(path)) for path in (data.raw(name, source), output, data.raw(name, target))))
    paths = (data.tokens(name, source), tokens_of(output), data.tokens(name, target))
    if not all(path.exists() for path in paths):
        return Translation(raw)
    return Translation(raw, Texts(*(list(read_lines(path)) for path in paths)))


def read_json(path: Path) -> Dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: the file holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not value or not isinstance(value, dict):
        raise _damaged(path)
    return value


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged: put it back, or delete the folder and make the run again")

"""The user's own files as the command line names them: the declaration that a corpus file would hold."""

import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import yaml

from ..data.corpora.declaration import Declaration, Part, parse_declaration
from ..data.corpora.readers import read_part
from ..data.corpora.sources import without_packing
from ..data.extra_test_set import NewTest, usable_name
from ..data.languages import parse_directions
from ..data.types import Pair
from ..errors import UserError
from ..files import atomic_write
from .recipes import Setup

NAME = "custom"


def declare(
    direction: str,
    files: Dict[str, Sequence[Sequence[Path]]],
    subwords: Optional[int] = None,
    lowercase: bool = False,
    clean: Optional[Sequence[float]] = None,
    validation_every: Optional[int] = None,
) -> Dict[str, Any]:
    """What a corpus file says about the user's ``files``: split → one file with both languages, or two, several times.

    Several training sets are joined, and so are several validation sets; test sets stay apart, each with a name.

    Raises:
        UserError: a direction that is none, a split without files, too many files for one text, or the target's first.
    """
    directions = parse_directions(direction)
    if len(directions) > 1:
        raise UserError("several directions in one model need a corpus file, see docs/your-corpus.md")
    for split in ("train", "test", *(() if validation_every else ("valid",))):
        if not files.get(split):
            other = ", or take every Nth training pair with --validation-every N" if split == "valid" else ""
            raise UserError(f"no {split} set: name its files with --{split} SOURCE TARGET{other}")
    if validation_every and files.get("valid"):
        raise UserError("--valid and --validation-every exclude each other")
    splits: Dict[str, Any] = {
        split: [_part(split, paths, directions[0]) for paths in files[split]]
        for split in ("train", "valid")
        if files.get(split)
    }
    names = _test_names(files["test"])
    splits.update({name: [_part("test", paths, directions[0])] for name, paths in zip(names, files["test"])})
    preprocessing: Dict[str, Any] = {"subwords": subwords, "validation_every": validation_every}
    preprocessing = {key: value for key, value in preprocessing.items() if value is not None}
    if lowercase:
        preprocessing["lowercase"] = True
    if clean is not None:
        ratio, minimum, maximum = clean
        preprocessing["clean"] = {"ratio": ratio, "minimum": minimum, "maximum": maximum}
    return {"name": NAME, "pairs": ["-".join(directions[0])], "splits": splits, "preprocessing": preprocessing}


def parse_custom(content: Dict[str, Any]) -> Declaration:
    """The corpus that :func:`declare` declares.

    Raises:
        UserError: a cleaning rule that is none, or a file that is not there.
    """
    return parse_declaration(content, NAME, Path.cwd())


def read_test(paths: Sequence[Path], directions: Sequence[Pair]) -> NewTest:
    """A test set in the user's own files: one with both languages, or the source's and the target's.

    Args:
        directions: of the model; where there are several, the endings of the files say which one is meant.

    Raises:
        UserError: they are not there, or not in this order; while reading, what is wrong with their text.
    """
    endings = tuple(map(_language_of, paths))
    direction = next((known for known in directions if known == endings), directions[0])
    if len(directions) > 1 and direction != endings:
        known = ", ".join(map("-".join, directions))
        raise UserError(f"the model has several directions, {known}: name the files of one by its languages, x.de x.en")
    files = _part("test", paths, direction)["file"]
    return NewTest(usable_name(paths[0]), direction, read_part(Part(tuple(files)), direction, direction, Path))


def write_corpus_file(content: Dict[str, Any], setup: Setup, path: Path) -> None:
    """Write the declaration with everything that was chosen, for grids and for changes by hand."""
    preprocessing, training = setup.corpus.preprocessing, setup.training
    chosen = {
        **content,
        "preprocessing": {
            **content["preprocessing"],
            "tokenizer": preprocessing.tokenizer,
            "subwords": preprocessing.subwords,
        },
        "training": {**training.groups, "settings": training.settings, "checkpoint": training.checkpoint},
    }
    with atomic_write(path) as part:
        part.write_text(yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _part(split: str, paths: Sequence[Path], direction: Pair) -> Dict[str, Any]:
    if len(paths) > 2:
        raise UserError(f"--{split} takes one file with both languages, or two files: got {len(paths)}")
    for path in paths:
        if not path.is_file():
            raise UserError(f"there is no file {path}")
    if len(paths) == 2:
        _check_order(split, paths[0], paths[1], direction)
    # a brace would begin a placeholder
    return {"file": [os.path.abspath(path).replace("{", "{{").replace("}", "}}") for path in paths]}


def _check_order(split: str, source: Path, target: Path, direction: Pair) -> None:
    """UserError where an ending says that a file is in the other language of ``direction``."""
    if source.resolve() == target.resolve():
        raise UserError(f"--{split} {source} {target}: the same file twice; name two, SOURCE TARGET")
    endings = _language_of(source), _language_of(target)
    if endings == direction[::-1]:
        name = "-".join(direction)
        raise UserError(f"--{split} {source} {target} is in the wrong order for {name}: write {target} {source}")
    for path, ending, language, other in zip((source, target), endings, direction, direction[::-1]):
        if ending == other:
            raise UserError(f"--{split} {source} {target}: {path} must be in {language}, but ends in .{ending}")


def _language_of(path: Path) -> str:
    """What the ending of a file says that its language is."""
    return without_packing(path).suffix[1:].lower().replace("-", "_")


def _test_names(tests: Sequence[Sequence[Path]]) -> List[str]:
    """``test``, or what the first file of several test sets is called before its first dot."""
    if len(tests) == 1:
        return ["test"]
    names = [usable_name(paths[0]) for paths in tests]
    return names if len(set(names)) == len(names) else [f"test{number}" for number in range(1, len(tests) + 1)]

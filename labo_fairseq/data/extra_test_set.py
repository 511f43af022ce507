"""Another test set for the models of a prepared corpus."""

import hashlib
import re
import shutil
from pathlib import Path
from typing import Iterable, Iterator, NamedTuple

from tqdm import tqdm

from ..errors import UserError
from ..files import atomic_directory
from .binarize import binarize
from .encode import to_tokens_and_subwords
from .prepared_corpus import Prepared
from .preprocess import Line, write_pairs
from .types import Pair

_NAME = re.compile(r"\w[\w-]*")


class NewTest(NamedTuple):
    """Text that a model is to be scored on."""

    name: str
    direction: Pair
    pairs: Iterable[Pair]  # can be read again


def usable_name(path: Path) -> str:
    """What a test set is called by its file: all before the first dot, or ``test`` where that is no name."""
    name = path.name.split(".")[0]
    return name if _NAME.fullmatch(name) and name not in ("train", "valid") else "test"


def prepare_test(data: Prepared, test: NewTest, root: Path) -> Prepared:
    """A corpus of this test set alone, prepared as ``data`` was, in a folder below ``root`` that its text gives a name.

    Raises:
        UserError: a sentence is too long; or see the readers of text.
    """
    name, direction, pairs = test
    digest = hashlib.sha256("-".join(direction).encode())
    for pair in pairs:
        for text in pair:
            digest.update(text.encode() + b"\n")
    folder = root / f"{name}-{digest.hexdigest()[:8]}"
    if Prepared(folder).recipe:
        return Prepared(folder)
    with atomic_directory(folder, Prepared(folder).check_replaceable) as work:
        files = Prepared(work)
        files.binarized.mkdir(parents=True)
        dictionaries = sorted(data.binarized.glob("dict.*.txt"))
        for path in (data.codes, data.sentencepiece, *dictionaries):
            if path.exists():
                shutil.copy(path, work / path.relative_to(data.folder))
        split = data.split(name, *direction)
        counts = write_pairs(((split, line) for line in _lines(data, test)), files, direction)
        dictionary = data.binarized / f"dict.{direction[0]}.txt"
        binarize({name: work / "bpe" / split}, direction, files.binarized, dictionary=dictionary)
        files.write_metadata(data.recipe, counts, [name], data.scoring)
    return Prepared(folder)


def _lines(data: Prepared, test: NewTest) -> Iterator[Line]:
    for number, pair in enumerate(tqdm(test.pairs, desc=f"prepare {test.name}", unit=" pairs"), 1):
        try:
            sides = [to_tokens_and_subwords(data, *side) for side in zip(test.direction, pair)]
        except UserError as error:
            raise UserError(f"line {number} of the test set {test.name}: {error}") from None
        (tokens, subwords), (of_target, subwords_of_target) = sides
        both = None if data.uses_sentencepiece else (tokens, of_target)
        yield Line(pair, both, (subwords, subwords_of_target))

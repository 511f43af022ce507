"""Lines and pairs of lines, read from files and archives as they are needed, as often as they are needed."""

import bz2
import gzip
import lzma
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import IO, Any, Callable, ContextManager, Dict, Iterable, Iterator, Optional, Tuple, Union

from ...errors import UserError
from ..archives import open_member
from ..types import Pair

#: ending of a packed file → what opens it
_PACKED: Dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}


@dataclass(frozen=True)
class TextFile:
    """Lines of a UTF-8 file, packed where its name ends in ``.gz``, ``.xz`` or ``.bz2``."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The bytes."""
        with _PACKED.get(self.path.suffix, open)(self.path, "rb") as file:
            yield file

    def __iter__(self) -> Iterator[str]:
        return _lines(self)


@dataclass(frozen=True)
class Member:
    """Lines of a UTF-8 file inside a tar or zip archive."""

    archive: Path
    name: str

    def __str__(self) -> str:
        return f"{self.archive}:{self.name}"

    def open(self) -> ContextManager[IO[bytes]]:
        """The bytes."""
        return open_member(self.archive, self.name)

    def __iter__(self) -> Iterator[str]:
        return _lines(self)


@dataclass(frozen=True)
class Stream:
    """Lines of UTF-8 that can be read once, such as standard input."""

    file: IO[bytes]
    name: str

    def __str__(self) -> str:
        return self.name

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The bytes."""
        yield self.file

    def __iter__(self) -> Iterator[str]:
        return _lines(self)


Lines = Union[TextFile, Member, Stream]


@dataclass(frozen=True)
class Parallel:
    """Pairs of two files' lines, what ``keep`` leaves of each; a stream, the same at each reading.

    Reading raises :class:`UserError` where a file is damaged, no UTF-8, blank, or shorter than the other.
    """

    source: Lines
    target: Lines
    keep: Callable[[Iterable[str]], Iterable[str]] = iter

    def __iter__(self) -> Iterator[Pair]:
        filled = False
        sides = (self.keep(self.source), self.keep(self.target))
        for number, (source, target) in enumerate(zip_longest(*sides), 1):
            if source is None or target is None:
                short, long = (self.source, self.target) if source is None else (self.target, self.source)
                raise UserError(
                    f"{short} ends after {number - 1} sentences, {long} goes on: line n of the one must be the "
                    "translation of line n of the other"
                )
            filled = filled or bool(source.strip() and target.strip())
            yield source, target
        if not filled:
            raise UserError(
                f"no sentence in {self.source} and {self.target}: they are empty, or not what they should be"
            )


@dataclass(frozen=True)
class Columns:
    """Pairs of two columns of a file of lines with tabs; a stream, the same at each reading.

    Reading raises :class:`UserError` where the file is damaged, no UTF-8 or blank, or a line has too few columns.
    """

    text: Lines
    source: int  # number of its column, from 0
    target: int

    def __iter__(self) -> Iterator[Pair]:
        filled = False
        for number, line in enumerate(self.text, 1):
            columns = line.split("\t")
            if len(columns) <= max(self.source, self.target):
                raise UserError(
                    f"{self.text}, line {number}: {len(columns)} columns, expected a tab between the two languages; "
                    "one file with both must be TSV, TMX or zip, plain text takes two, SOURCE TARGET"
                )
            pair = columns[self.source], columns[self.target]
            filled = filled or all(side.strip() for side in pair)
            yield pair
        if not filled:
            raise UserError(f"no sentence in {self.text}: it is empty, or not what it should be")


@dataclass(frozen=True)
class Joined:
    """Several texts, one after the other."""

    parts: Tuple[Iterable[Pair], ...]

    def __iter__(self) -> Iterator[Pair]:
        return chain.from_iterable(self.parts)


@dataclass(frozen=True)
class First:
    """The first so many pairs of a text; all of them where ``number`` is None."""

    pairs: Iterable[Pair]
    number: Optional[int]

    def __iter__(self) -> Iterator[Pair]:
        return islice(iter(self.pairs), self.number)


def without_packing(path: Path) -> Path:
    """``path`` without the ending of a packed file."""
    return path.with_suffix("") if path.suffix in _PACKED else path


def read_parallel(source_file: Path, target_file: Path) -> Parallel:
    """Pairs of the user's own two files, plain or packed, line by line.

    Raises:
        UserError: a file is not there; reading the pairs may raise it too, see :class:`Parallel`.
    """
    for path in (source_file, target_file):
        if not path.is_file():
            raise UserError(f"there is no file {path}")
    return Parallel(TextFile(source_file), TextFile(target_file))


def _lines(text: Lines) -> Iterator[str]:
    """Lines without their end, which only ``\\n`` and ``\\r\\n`` are, and without a byte order mark."""
    number = 0
    try:
        with text.open() as file:
            for line in file:
                number += 1
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{text}, line {number}: no UTF-8 (byte {error.start + 1}); convert it first") from None
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise UserError(f"{text} cannot be read after line {number} ({error}): get or pack it again") from None

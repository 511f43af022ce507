"""Translation memories (TMX 1.4), as a stream; entities, which could fill the memory, are refused."""

import lzma
import zlib
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Optional
from xml.parsers import expat

from ...errors import UserError
from ..types import Pair
from .sources import Lines

_PIECE = 1 << 16
#: elements of a segment that hold codes of another format, no text
_CODES = frozenset(("bpt", "ept", "it", "ph", "ut"))


@dataclass(frozen=True)
class TranslationMemory:
    """Pairs of the translation units that have both languages; a stream, the same at each reading.

    ``en`` finds ``en-US`` too. Reading raises :class:`UserError` where the file is damaged, no XML, has an entity
    or no pair of these languages.
    """

    text: Lines
    source: str
    target: str

    def __iter__(self) -> Iterator[Pair]:
        state = _State()
        parser = expat.ParserCreate()
        parser.StartElementHandler = state.start
        parser.EndElementHandler = state.end
        parser.CharacterDataHandler = state.characters
        parser.EntityDeclHandler = parser.SkippedEntityHandler = _refuse_entity
        is_empty = True
        try:
            with self.text.open() as file:
                while True:
                    piece = file.read(_PIECE)
                    parser.Parse(piece, not piece)
                    for unit in state.take():
                        pair = self._pair(unit)
                        if pair is not None:
                            is_empty = False
                            yield pair
                    if not piece:
                        break
        except _EntityError:
            raise UserError(
                f"{self.text} has an XML entity, and entities are not read: write its text instead"
            ) from None
        except expat.ExpatError as error:
            raise UserError(f"{self.text} is no TMX ({error})") from None
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            raise UserError(f"{self.text} cannot be read ({error}): get or pack it again") from None
        if is_empty:
            raise UserError(f"{self.text} has no translation unit in both {self.source} and {self.target}")

    def _pair(self, unit: Dict[str, str]) -> Optional[Pair]:
        source, target = _find(unit, self.source), _find(unit, self.target)
        return None if source is None or target is None else (source, target)


class _EntityError(Exception):
    """An entity is declared, or used without being declared."""


@dataclass
class _State:
    """What the parser has seen of the current unit, and the units that are whole."""

    units: List[Dict[str, str]] = field(default_factory=list)
    unit: Dict[str, str] = field(default_factory=dict)
    language: str = ""
    text: Optional[List[str]] = None  # of the open segment
    codes: int = 0  # how many elements of codes are open

    def start(self, name: str, attributes: Dict[str, str]) -> None:
        if name == "tu":
            self.unit = {}
        elif name == "tuv":
            language = attributes.get("xml:lang") or attributes.get("lang") or ""
            self.language = language.lower().replace("-", "_")
        elif name == "seg":
            self.text, self.codes = [], 0
        elif name in _CODES:
            self.codes += 1

    def end(self, name: str) -> None:
        if name == "tu":
            self.units.append(self.unit)
        elif name == "seg" and self.text is not None:
            self.unit.setdefault(self.language, " ".join("".join(self.text).split()))
            self.text = None
        elif name in _CODES:
            self.codes -= 1

    def characters(self, text: str) -> None:
        if self.text is not None and not self.codes:
            self.text.append(text)

    def take(self) -> List[Dict[str, str]]:
        units, self.units = self.units, []
        return units


def _refuse_entity(*_: object) -> None:
    raise _EntityError


def _find(unit: Dict[str, str], language: str) -> Optional[str]:
    if language in unit:
        return unit[language]
    return next((text for code, text in unit.items() if code.split("_")[0] == language), None)

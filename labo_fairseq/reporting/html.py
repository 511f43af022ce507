"""One HTML page that needs nothing but itself: style, figures and tables inside, no script, no request."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Sequence, Union

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .figure import NO_FIGURE, Figure, to_svg
from .table import Table

_TEMPLATE = "report.html.j2"
_LONG = 40  # characters of a cell that may be broken into lines
_DPI = 96  # pixels of a page per inch


@dataclass(frozen=True)
class Paragraph:
    """Text; ``faint`` for what is read only if one looks for it."""

    text: str
    faint: bool = False


@dataclass(frozen=True)
class Details:
    """Text as it stands, shown when asked for."""

    summary: str
    text: str


Block = Union[Paragraph, Details, Table, Figure]


@dataclass(frozen=True)
class Section:
    """A heading, and what stands below it."""

    anchor: str
    title: str
    blocks: Sequence[Block]


def page(title: str, text: str, sections: Sequence[Section]) -> str:
    """The whole document; a figure becomes a line that says why it is missing where matplotlib is not installed."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    shown = [
        {"anchor": section.anchor, "title": section.title, "blocks": list(map(_context, section.blocks))}
        for section in sections
    ]
    return environment.get_template(_TEMPLATE).render(title=title, text=text, sections=shown)


def _context(block: Block) -> Dict[str, Any]:
    """What the template reads of a block."""
    if isinstance(block, Table):
        return {"kind": "table", **vars(block), "classes": _classes(block)}
    if isinstance(block, Figure):
        svg = to_svg(block)
        if svg is None:
            return _context(Paragraph(NO_FIGURE, faint=True))
        width, height = (round(_DPI * inches) for inches in block.size)
        data = base64.b64encode(svg.encode("utf-8")).decode("ascii")
        return {"kind": "figure", "name": block.name, "alt": block.alt, "svg": data, "width": width, "height": height}
    return {"kind": type(block).__name__.lower(), **vars(block)}


def _classes(table: Table) -> Sequence[str]:
    """The CSS class of every column."""
    longest = (max((len(row[column]) for row in table.rows), default=0) for column in range(len(table.header)))
    return [
        "number" if number else "long" if length > _LONG else "text" for number, length in zip(table.numeric, longest)
    ]

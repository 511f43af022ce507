"""One HTML page that needs nothing but itself: style, pictures and tables inside, no script, no request."""

import base64
from dataclasses import dataclass
from html import escape
from typing import List, Sequence

from .figure import NO_FIGURE, Figure, to_svg
from .table import Table

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --faint: #666; --line: #d5d5d5; --link: #00599a; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181c; --ink: #ddd; --faint: #9a9a9a; --line: #3a3d44; --link: #79b8f0; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: .5rem 0 1rem; overflow-wrap: anywhere; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; margin: 1rem 0 0; }
.faint { color: var(--faint); font-size: .875rem; }
.wide { overflow-x: auto; margin: 0 0 1.5rem; }
.wide:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9375rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .35rem; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tbody th { font-weight: 400; white-space: nowrap; }
thead th { border-bottom-color: var(--faint); font-weight: 600; }
.long { min-width: 32rem; }
.number { text-align: right; white-space: nowrap; }
figure { margin: 0 0 1.5rem; }
img { display: block; max-width: 100%; height: auto; }
pre { overflow-x: auto; font-size: .8125rem; line-height: 1.4; }
summary { cursor: pointer; padding: .25rem 0; }
@media (max-width: 40rem) { figure img { max-width: none; width: 40rem; } }
@media print { .wide { overflow: visible; } body { max-width: none; } }
"""

# a browser that reads this sends nothing, whatever is in the page
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Section:
    """A heading, and ready HTML below it."""

    anchor: str
    title: str
    blocks: Sequence[str]


def page(title: str, text: str, sections: Sequence[Section]) -> str:
    """The whole document."""
    links = "".join(f'<li><a href="#{each.anchor}">{escape(each.title)}</a></li>' for each in sections)
    lines: List[str] = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        f'<header>\n<h1>{escape(title)}</h1>\n{paragraph(text)}\n<nav aria-label="Sections"><ul>{links}</ul></nav>',
        "</header>\n<main>",
    ]
    for each in sections:
        heading = f'<h2 id="{each.anchor}-title">{escape(each.title)}</h2>'
        lines.append(f'<section id="{each.anchor}" aria-labelledby="{each.anchor}-title">\n{heading}')
        lines += [*each.blocks, "</section>"]
    return "\n".join([*lines, "</main>\n</body>\n</html>\n"])


def paragraph(text: str, faint: bool = False) -> str:
    """Text; ``faint`` for what is read only if one looks for it."""
    opening = '<p class="faint">' if faint else "<p>"
    return f"{opening}{escape(text)}</p>"


def table(content: Table) -> str:
    """A table that scrolls in its own place where the page is narrow, with the keyboard too."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(content.caption)}">{content.html()}</div>'


def picture(content: Figure) -> str:
    """The picture inside the page, or a line that says why there is none."""
    svg = to_svg(content)
    if svg is None:
        return paragraph(NO_FIGURE, faint=True)
    data = base64.b64encode(svg.encode("utf-8")).decode("ascii")
    width, height = (round(96 * inches) for inches in content.size)
    image = (
        f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(content.alt)}" width="{width}" height="{height}">'
    )
    label = escape(content.name)
    return f'<figure class="wide" role="region" tabindex="0" aria-label="Figure: {label}">{image}</figure>'


def details(summary: str, text: str) -> str:
    """Text as it stands, shown when asked for."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"

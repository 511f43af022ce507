"""The recipes of docs/contributing.md, which the tests follow."""

import re
from pathlib import Path

_PAGE = Path(__file__).resolve().parents[1] / "docs" / "contributing.md"


def recipe(title, language="python"):
    """The code blocks in one section of the page, as one text."""
    return "\n\n".join(blocks(title, language))


def blocks(title, language="python"):
    """The code blocks in one section of the page."""
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", _PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return re.findall(rf"```{language}\n(.*?)```", section.group(1), re.DOTALL)

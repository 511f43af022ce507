"""Tables of ready-made cells, for the terminal and for Markdown."""

import re
import textwrap
from dataclasses import dataclass
from typing import List, Sequence, Tuple

WIDTH = 100  # columns of the terminal that a table should be readable in

_NUMBER = re.compile(r"[+−-]?[\d,]+(\.\d+)?%?|")
_GAP = "  "


@dataclass(frozen=True)
class Table:
    """A caption, column titles, and rows of as many cells; the first cell of a row names it."""

    caption: str
    header: Tuple[str, ...]
    rows: Sequence[Tuple[str, ...]]

    @property
    def numeric(self) -> List[bool]:
        """Which columns hold numbers or nothing."""
        return [all(_NUMBER.fullmatch(row[column]) for row in self.rows) for column in range(len(self.header))]

    def text(self, width: int = WIDTH) -> str:
        """Aligned; the last column is broken into lines where it would go beyond ``width``."""
        *widths, last = (max(map(len, column)) for column in zip(self.header, *self.rows))
        left = sum(widths) + len(_GAP) * len(widths)
        last = min(last, max(width - left, 20))
        lines = [self.caption, ""]
        for cells in (self.header, *self.rows):
            fields = [
                cell.rjust(size) if number else cell.ljust(size)
                for cell, size, number in zip(cells, widths, self.numeric)
            ]
            ending = textwrap.wrap(cells[-1], last, break_long_words=False, break_on_hyphens=False) or [""]
            if self.numeric[-1]:
                ending = [ending[0].rjust(last)]
            lines.append(_GAP.join([*fields, ending[0]]).rstrip())
            lines += [" " * left + more for more in ending[1:]]
        return "\n".join(lines)

    def markdown(self) -> str:
        """The caption in bold, and a pipe table."""
        rule = ["---:" if number else "---" for number in self.numeric]
        cells = [[cell.replace("|", r"\|") for cell in row] for row in (self.header, *self.rows)]
        lines = [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])]
        return "\n".join([f"**{self.caption}**", "", *lines])

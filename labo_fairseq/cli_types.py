"""How the command line is read: numbers in their ranges, one-line errors, a help text with the defaults."""

import argparse
import math
import re
import sys
import textwrap
from pathlib import Path
from typing import Any, Callable, List, NoReturn, Optional, Set


class StoreOnce(argparse.Action):
    """Store a value, and refuse a second one, which would replace the first without a word."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Optional[str] = None
    ) -> None:
        assert isinstance(parser, Parser)
        if option is not None:
            if self.dest in parser.stored:
                parser.error(f"argument {option}: given twice, and only one can be used")
            parser.stored.add(self.dest)
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, without the usage, which may fill a screen.

    An option with a value is given once, unless its action says otherwise; a flag may be repeated.
    """

    #: adds further arguments when the parser is first used
    fill: Optional[Callable[["Parser"], None]] = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.stored: Set[str] = set()  # options that have their value
        for name in (None, "store"):
            self.register("action", name, StoreOnce)

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def,override]
        """As its parent; a parser may be used several times."""
        self.stored.clear()
        if self.fill:
            fill, self.fill = self.fill, None
            fill(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help)\n")


def whole(least: int, most: int = sys.maxsize) -> Callable[[str], int]:
    """The type of an option that is an integer in a range."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?\d{1,20}", text) or not least <= int(text) <= most:
            limit = f" and ≤ {most:,}" if most < sys.maxsize else ""
            raise argparse.ArgumentTypeError(f"must be an integer ≥ {least}{limit}, got {text}")
        return int(text)

    return parse


def finite(text: str) -> float:
    """The type of an option that is a number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text}")
    return value


def length_penalty(text: str) -> float:
    """The type of an option that a length is raised to."""
    value = finite(text)
    if abs(value) > 10:
        raise argparse.ArgumentTypeError(f"must be between -10 and 10, got {text}")
    return value


def positive(text: str) -> float:
    """The type of an option that is a number above 0."""
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be > 0, got {text}")
    return value


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows every default that tells a reader something: not those of switches, not None."""

    def _get_help_string(self, action: argparse.Action) -> Optional[str]:
        silent = action.default in (None, "", [], ()) or isinstance(action.default, bool)
        return action.help if silent else super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Paragraphs stay apart, and options and paths stay whole."""
        paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
        return "\n\n".join(
            textwrap.fill(
                paragraph,
                width,
                initial_indent=indent,
                subsequent_indent=indent,
                break_on_hyphens=False,
                break_long_words=False,
            )
            for paragraph in paragraphs
        )

    def _split_lines(self, text: str, width: int) -> List[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)


PROCESSES = whole(1, 1024)
BEAM = whole(1, 1000)
LARGEST_SEED = (1 << 32) - 1  # that NumPy takes
SEED = whole(0, LARGEST_SEED)

#: the default folder of all runs, and what is said of one that may be a run or hold several
RUNS = Path("runs")
NEWEST_HELP = "directory of the run, or one above it: then the newest run there"

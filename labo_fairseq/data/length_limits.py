"""How long a sentence may be.

Moses' rules and BPE need the square of a length in time, and a model has only so many positions: a line of a megabyte
would take hours, or stop a training. Training pairs that are too long are left out, as Moses and fairseq leave them
out; a set that scores are computed on is refused, for they need every line of it.
"""

import sys
from typing import Callable, Iterable, Iterator, Optional, TypeVar

from tqdm import tqdm

from ..errors import UserError
from .moses import LONGEST_WORD
from .types import Pair

LONGEST_LINE = 20000  # characters of raw text
LONGEST_SENTENCE = 1023  # subwords: fairseq's models have 1,024 positions, and the end of a sentence takes one

Item = TypeVar("Item")


def excess_of_line(text: str) -> Optional[str]:
    """What is too long about raw text, in words, or None."""
    return f"{len(text):,} characters, at most {LONGEST_LINE:,}" if len(text) > LONGEST_LINE else None


def excess_of_words(tokens: str) -> Optional[str]:
    """What is too long about the tokens of a line, in words, or None."""
    longest = max(map(len, tokens.split()), default=0) if len(tokens) > LONGEST_WORD else 0
    return f"a word of {longest:,} characters, at most {LONGEST_WORD:,}" if longest > LONGEST_WORD else None


def excess_of_subwords(subwords: str) -> Optional[str]:
    """What is too long about a line in subwords, in words, or None."""
    number = subwords.count(" ") + 1
    return f"{number:,} subwords, at most {LONGEST_SENTENCE:,}" if number > LONGEST_SENTENCE else None


def filter_by_length(
    items: Iterable[Item],
    sides: Callable[[Item], Pair],
    excess: Callable[[str], Optional[str]],
    split: str,
    languages: Pair,
    training: bool,
) -> Iterator[Item]:
    """``items`` of which no side has an ``excess``; a line on stderr says how many of a training set were left out.

    Raises:
        UserError: one has and they are not for ``training``.
    """
    left_out, first = 0, ""
    for number, item in enumerate(items, 1):
        too_long = next(
            (f"{reason} ({language})" for language, reason in zip(languages, map(excess, sides(item))) if reason), None
        )
        if too_long is None:
            yield item
        elif training:
            left_out, first = left_out + 1, first or too_long
        else:
            raise UserError(f"line {number} of the {split} set has {too_long}: cut it into sentences")
    if left_out:
        tqdm.write(f"{split}: {left_out} pairs left out as too long, the first with {first}", file=sys.stderr)

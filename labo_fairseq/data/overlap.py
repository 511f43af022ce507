"""Validation and test sets that repeat training pairs."""

import sys
from typing import Dict, Iterator, List

from ..files import read_lines
from .prepared_corpus import Prepared
from .types import Pair

#: the share of a set that may be training pairs without a word
_MOST = 0.1


def warn_of_repeated_pairs(data: Prepared, direction: Pair) -> None:
    """A line on stderr for each set of which more than a tenth of the pairs, both sides alike, are training pairs."""
    # hashes of the small sets alone: a training set may have millions of pairs
    held_out: Dict[str, List[int]] = {name: list(_hashes(data, name, direction)) for name in ("valid", *data.tests)}
    wanted = {pair for pairs in held_out.values() for pair in pairs}
    trained = {pair for pair in _hashes(data, "train", direction) if pair in wanted}
    for name, pairs in held_out.items():
        repeated = sum(pair in trained for pair in pairs)
        if repeated > _MOST * len(pairs):
            print(
                f"{repeated:,} of {len(pairs):,} pairs of {data.split(name, *direction)} ({repeated / len(pairs):.0%}) "
                "are training pairs too: its scores say little about new text",
                file=sys.stderr,
            )


def _hashes(data: Prepared, name: str, direction: Pair) -> Iterator[int]:
    split = data.split(name, *direction)
    return map(hash, zip(*(read_lines(data.raw(split, language)) for language in direction)))

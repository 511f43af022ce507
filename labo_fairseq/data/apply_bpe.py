"""Words in BPE units, as subword-nmt's ``apply_bpe.py`` writes them, each word worked out once."""

from functools import lru_cache
from pathlib import Path

from subword_nmt.apply_bpe import BPE

#: words whose units are remembered: about 200 MB
_REMEMBERED = 1 << 19


class Segmenter:
    """Merges of a file of codes, applied to tokenized lines."""

    def __init__(self, codes: Path):
        with open(codes, encoding="utf-8") as file:
            self._bpe = BPE(file)
        self._units = lru_cache(maxsize=_REMEMBERED)(self._segment)

    def process_line(self, line: str) -> str:
        """``line`` in units that are separated by spaces; ``@@`` ends those that do not end a word."""
        words = line.split(" ")
        if "" in words or line[0] in "\r\n" or line[-1] in "\r\n":
            # spaces at the ends stay
            return self._bpe.process_line(line)
        return " ".join(map(self._units, words))

    def _segment(self, word: str) -> str:
        units = self._bpe.segment(word)
        self._bpe.cache.clear()  # which would grow without a limit
        return units

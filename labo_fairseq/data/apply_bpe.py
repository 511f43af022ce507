"""Words in BPE units, as subword-nmt's ``apply_bpe.py`` writes them, each word worked out once."""

from pathlib import Path
from typing import Dict

from subword_nmt.apply_bpe import BPE

#: words whose units are remembered at a time: about 200 MB
_REMEMBERED = 1 << 20


class Segmenter:
    """Merges of a file of codes, applied to tokenized lines."""

    def __init__(self, codes: Path):
        with open(codes, encoding="utf-8") as file:
            self._bpe = BPE(file)
        self._units = _Units(self._bpe)

    def process_line(self, line: str) -> str:
        """``line`` in units that are separated by spaces; ``@@`` ends those that do not end a word."""
        words = line.split(" ")
        if "" in words or line[0] in "\r\n" or line[-1] in "\r\n":
            # spaces at the ends stay
            return self._bpe.process_line(line)
        return " ".join(map(self._units.__getitem__, words))


class _Units(Dict[str, str]):
    """Word → its units, as they are asked for."""

    def __init__(self, bpe: BPE) -> None:
        super().__init__()
        self._bpe = bpe

    def __missing__(self, word: str) -> str:
        if len(self) == _REMEMBERED:
            self.clear()
        self[word] = units = self._bpe.segment(word)
        self._bpe.cache.clear()  # the same words again
        return units

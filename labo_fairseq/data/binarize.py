"""What ``fairseq-preprocess`` writes, byte for byte, in a tenth of its time: dictionaries and indexed binary files."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Type
from typing import Counter as CounterType

import numpy as np

from .parallel_map import map_whole, workers_for
from .types import Pair

_PIECE = 1 << 20  # ids in memory at a time


def binarize(
    prefixes: Dict[str, Path],
    languages: Pair,
    binarized: Path,
    workers: int = 1,
    dictionary: Optional[Path] = None,
) -> None:
    """``fairseq-preprocess`` with one dictionary for both languages.

    Args:
        prefixes: split → path of its files without their language; any but "train" and "valid" is a test set.
        workers: processes; a file is read by one of them.
        dictionary: to use; None: made of the training set.

    Raises:
        UserError: a process was killed.
    """
    # here, for the other processes import this module and need no fairseq
    from fairseq.data import Dictionary
    from fairseq.data.indexed_dataset import MMapIndexedDataset, best_fitting_int_dtype

    tests = (split for split in prefixes if split not in ("train", "valid"))
    names = {"train": "train", "valid": "valid"}
    names.update((split, f"test{number or ''}") for number, split in enumerate(tests))
    files = [
        (_text(prefix, language), binarized / f"{names[split]}.{'-'.join(languages)}.{language}")
        for split, prefix in prefixes.items()
        for language in languages
    ]
    workers = workers_for((text for text, _ in files), workers)
    binarized.mkdir(parents=True, exist_ok=True)
    if dictionary is None:
        known = Dictionary()
        texts = [_text(prefixes["train"], language) for language in languages]
        for counts in map_whole(_count, texts, workers, "dictionary"):
            for token, count in counts.items():
                known.add_symbol(token, count)
        known.finalize()
    else:
        known = Dictionary.load(str(dictionary))
    for language in languages:
        known.save(str(binarized / f"dict.{language}.txt"))
    dtype = best_fitting_int_dtype(len(known))
    function = partial(_binarize_file, _Ids(known.indices, known.unk()), known.eos(), dtype)
    for (_, target), lengths in zip(files, map_whole(function, files, workers, "binarize")):
        with MMapIndexedDataset.Index.writer(f"{target}.idx", dtype) as index:
            index.write(lengths.tolist())


class _Ids(Dict[str, int]):
    """Token → id; of every token that is not known, that of the unknown one."""

    def __init__(self, known: Dict[str, int], unknown: int) -> None:
        super().__init__(known)
        self._unknown = unknown

    def __missing__(self, token: str) -> int:
        return self._unknown

    def __reduce__(self) -> Tuple[Any, ...]:
        return _Ids, (dict(self), self._unknown)


def _text(prefix: Path, language: str) -> Path:
    return prefix.with_name(f"{prefix.name}.{language}")


def _count(path: Path) -> CounterType[str]:
    """How often each token stands in a file."""
    counts: CounterType[str] = Counter()
    with open(path, encoding="utf-8") as file:
        for line in file:
            counts.update(line.split())
    return counts


def _binarize_file(ids: _Ids, end: int, dtype: Type[np.integer], file: Tuple[Path, Path]) -> np.ndarray:
    """Write the ids of a text's tokens, with ``end`` after each line, to its ``.bin``; the lengths of its lines."""
    source, target = file
    lengths: List[int] = []
    with open(source, encoding="utf-8") as text, open(f"{target}.bin", "wb") as binary:
        piece: List[int] = []
        for line in text:
            before = len(piece)
            piece += map(ids.__getitem__, line.split())
            piece.append(end)
            lengths.append(len(piece) - before)
            if len(piece) > _PIECE:
                binary.write(np.array(piece, dtype).tobytes())
                piece.clear()
        binary.write(np.array(piece, dtype).tobytes())
    return np.array(lengths, np.int32)

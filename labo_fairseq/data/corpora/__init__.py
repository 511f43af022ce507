"""Corpora as raw pairs: what their declarations say, and nothing more.

Left to :mod:`labo_fairseq.data.preprocess`: tokenizing, normalizing punctuation, lower-casing, dropping pairs by length
and ratio, cutting the validation set out of the training set where there is no "valid", subwords.
"""

import random
from fractions import Fraction
from pathlib import Path
from typing import Dict, Hashable, Iterable, List, Optional, Tuple, Union

from ...errors import UserError
from ..archives import archive_folder, cache_folder, fetch
from ..types import Corpus, Pair
from .declaration import Cut, Declaration, load_declaration
from .readers import group_by_language, group_by_reader, read_part
from .sources import Joined, read_parallel

__all__ = ["load_corpus", "read_corpus", "read_parallel", "split_by_group"]


def load_corpus(name: str, source: str, target: str, archive_dir: Optional[Path] = None) -> Corpus:
    """:func:`read_corpus` of the corpus ``name``, or of the YAML file of that name."""
    given = archive_folder(archive_dir)
    return read_corpus(load_declaration(name, given), (source, target), given)


def read_corpus(corpus: Declaration, pair: Pair, archive_dir: Optional[Path] = None) -> Corpus:
    """Raw pairs of a corpus by split; streams that can be read again and again, also in another process.

    Its archives are fetched first, see :func:`labo_fairseq.data.archives.fetch`; nothing is unpacked.

    Raises:
        UserError: an unknown direction, an archive that cannot be had; while reading, a damaged one.
    """
    declared = pair if pair in corpus.texts else pair[::-1]
    one_way = pair not in corpus.multilingual and declared not in corpus.pairs
    if declared not in corpus.texts or one_way:
        both = [direction for known in corpus.pairs for direction in (known, known[::-1])]
        directions = ", ".join(map("-".join, dict.fromkeys((*both, *corpus.multilingual))))
        raise UserError(f"{corpus.name} has no {'-'.join(pair)}: choose from {directions}")
    given = archive_folder(archive_dir)

    def path_of(file: str) -> Path:
        own = corpus.path_of(file)
        return own if own is not None else fetch(corpus.archives[file], cache_folder(), given)

    texts = {
        split: [read_part(part, declared, pair, path_of) for part in parts]
        for split, parts in corpus.texts[declared].items()
    }
    if corpus.cut is None:
        return {split: parts[0] if len(parts) == 1 else Joined(tuple(parts)) for split, parts in texts.items()}
    return _cut(texts["text"], pair, corpus.cut)


def split_by_group(
    keyed: Iterable[Tuple[Hashable, Pair]],
    valid: Union[int, Fraction],
    test: Union[int, Fraction],
    seed: int = 1,
    what: str = "groups",
) -> Corpus:
    """Whole groups of pairs, drawn at random, make up the validation and the test set; the rest is for training.

    Pairs of one group repeat each other, so a split by pair would let the model see its test set.

    Args:
        valid, test: groups of each, or the share of all groups.

    Raises:
        UserError: there are too few groups.
    """
    pairs = list(keyed)
    groups = sorted({group for group, _ in pairs})  # type: ignore[type-var]
    sizes = [size if isinstance(size, int) else int(len(groups) * size) for size in (valid, test)]
    if len(groups) <= sum(sizes) or not all(sizes):
        raise UserError(f"{len(groups)} {what} cannot give {sizes[0]} + {sizes[1]} and a training set")
    random.Random(seed).shuffle(groups)
    held_out = dict.fromkeys(groups[: sizes[1]], "test")
    held_out.update(dict.fromkeys(groups[sizes[1] : sum(sizes)], "valid"))
    splits: Dict[str, List[Pair]] = {"train": [], "valid": [], "test": []}
    for group, pair in pairs:
        splits[held_out.get(group, "train")].append(pair)
    return {split: tuple(chosen) for split, chosen in splits.items()}


def _cut(parts: List[Iterable[Pair]], pair: Pair, cut: Cut) -> Corpus:
    if cut.by in pair:
        keyed = group_by_language(Joined(tuple(parts)), pair.index(cut.by))
        return split_by_group(keyed, cut.valid, cut.test, cut.seed, f"{cut.by} sentences")
    chained = (keyed for part in parts for keyed in group_by_reader(part, cut.by))
    return split_by_group(chained, cut.valid, cut.test, cut.seed, f"{cut.by}s")

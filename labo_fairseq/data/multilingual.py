"""Several directions in one model: raw text in SentencePiece units that all languages share.

The recipe of fairseq's ``prepare-iwslt17-multilingual.sh``: one BPE model of SentencePiece over all training text,
no other tokenization, and training pairs dropped that are longer than so many units on either side.
"""

import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import sentencepiece

from ..files import atomic_directory, read_lines, write_lines
from .length_limits import excess_of_subwords, within
from .parallel_map import mapped
from .prepared_corpus import Prepared
from .preprocess import Line, binarise, refuse_empty, write_pairs
from .types import Corpus, Pair


@dataclass(frozen=True)
class MultilingualRecipe:
    """How several directions are prepared together; equal recipes give equal files."""

    corpus: str
    directions: Tuple[Pair, ...]
    vocabulary: int  # SentencePiece units
    maximum: int  # units on either side of a training or validation pair
    workers: int = 1  # processes; of no influence on the files

    @property
    def name(self) -> str:
        return "multilingual"

    def to_json(self) -> Dict[str, Any]:
        """What tells this recipe from another, as JSON reads it back."""
        known = {name: value for name, value in asdict(self).items() if name != "workers"}
        return {**known, "directions": [list(direction) for direction in self.directions]}


def prepare_multilingual(corpora: Dict[Pair, Corpus], recipe: MultilingualRecipe, folder: Path) -> Prepared:
    """Prepare one corpus per direction in ``folder``, which is complete when this returns and absent if it does not.

    Raises:
        UserError: a folder with files of the user's own, an empty split, a sentence that :func:`within` refuses, or
            ``fairseq-preprocess`` fails.
    """
    tests = [split for split in next(iter(corpora.values())) if split not in ("train", "valid")]
    splits = ["train", "valid", *tests]
    with atomic_directory(folder, Prepared(folder).check_replaceable) as work:
        files = Prepared(work)
        first = Prepared(work / "first")
        for (source, target), corpus in corpora.items():
            for split in splits:
                name = f"{split}.{source}-{target}"
                write_pairs(((name, Line(pair)) for pair in corpus[split]), first, (source, target))
        texts = [
            first.raw(f"train.{source}-{target}", language)
            for source, target in corpora
            for language in (source, target)
        ]
        dictionary = _learn(texts, files, recipe.vocabulary, recipe.workers)
        counts = Counter()
        for direction in corpora:
            names = {split: f"{split}.{'-'.join(direction)}" for split in splits}
            for split, name in names.items():
                pairs = zip(*(read_lines(first.raw(name, language)) for language in direction))
                encode = partial(_encode, files.sentencepiece, recipe.maximum if split not in tests else None)
                lines = mapped(encode, pairs, recipe.workers, f"SentencePiece {name}")
                lines = within(lines, attrgetter("subwords"), excess_of_subwords, name, direction, split == "train")
                counts += write_pairs(((name, line) for line in lines), files, direction)
            refuse_empty(counts, names.values())
            prefixes = {split: work / "bpe" / name for split, name in names.items()}
            binarise(prefixes, direction, files.binarised, work, recipe.workers, dictionary)
        shutil.rmtree(first.folder)
        files.write_facts(recipe.to_json(), counts, tests)
    return Prepared(folder)


def _learn(texts: List[Path], files: Prepared, vocabulary: int, workers: int) -> Path:
    """Learn the units of all ``texts`` together; the path of fairseq's dictionary of them."""
    sentencepiece.SentencePieceTrainer.train(
        input=",".join(map(str, texts)),
        model_prefix=str(files.sentencepiece.with_suffix("")),
        vocab_size=vocabulary,
        character_coverage=1.0,
        model_type="bpe",
        num_threads=workers,
        minloglevel=1,
    )
    model = load_sentencepiece(files.sentencepiece)
    units = (model.id_to_piece(number) for number in range(model.get_piece_size()) if not _special(model, number))
    dictionary = files.folder / "dict.txt"
    # fairseq wants a count of every unit, and uses it for nothing here
    write_lines(dictionary, (f"{unit} 1" for unit in units))
    return dictionary


def _special(model: sentencepiece.SentencePieceProcessor, number: int) -> bool:
    return model.is_control(number) or model.is_unknown(number)


def _encode(path: Path, maximum: Optional[int], pairs: List[Pair]) -> List[Line]:
    model = load_sentencepiece(path)
    lines = []
    for pair in pairs:
        pieces = [model.encode(text, out_type=str) for text in pair]
        if maximum is None or all(1 <= len(side) <= maximum for side in pieces):
            lines.append(Line(pair, subwords=tuple(map(" ".join, pieces))))
    return lines


@lru_cache(maxsize=1)
def load_sentencepiece(path: Path) -> sentencepiece.SentencePieceProcessor:
    """The units of a multilingual corpus."""
    return sentencepiece.SentencePieceProcessor(model_file=str(path))

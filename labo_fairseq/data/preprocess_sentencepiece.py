"""Raw text in SentencePiece units that all languages share: for any language, and for several directions in one model.

The recipe of fairseq's ``prepare-iwslt17-multilingual.sh``: one BPE model of SentencePiece over all training text,
no other tokenization, and training pairs dropped that are longer than so many units on either side.
"""

import re
import shutil
import sys
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple
from typing import Counter as CounterType

import sentencepiece

from ..errors import UserError
from ..files import atomic_directory, read_lines, write_lines
from .binarize import binarize
from .parallel_map import mapped
from .prepared_corpus import Prepared
from .preprocess import (
    Line,
    counted,
    excess_of_line,
    excess_of_subwords,
    filter_by_length,
    refuse_empty,
    say_what_was_cleaned,
    without_empty,
    write_pairs,
)
from .types import DEFAULT_SCORING, Corpus, DeclaredScoring, Pair

#: languages with thousands of characters, of which the rarest are left out of the units, and with full-width ones
_MANY_CHARACTERS = ("zh", "yue", "ja", "ko")


@dataclass(frozen=True)
class SentencePieceRecipe:
    """How one direction, or several together, are prepared; equal recipes give equal files."""

    corpus: str  # which text, and how it was split
    directions: Tuple[Pair, ...]
    vocabulary: int  # SentencePiece units
    maximum: Optional[int] = None  # units on either side of a training or validation pair
    multilingual: bool = False  # several directions in one model
    lowercase: bool = False
    validation_every: Optional[int] = None  # every n-th training pair is for validation instead
    workers: int = 1  # processes; of no influence on the files
    scoring: DeclaredScoring = DEFAULT_SCORING  # for those who score; of no influence on the files

    @property
    def name(self) -> str:
        return "multilingual" if self.multilingual else "-".join(self.directions[0])

    @property
    def keeps_forms(self) -> bool:
        """Whether characters stay as they are written, full-width ones among them."""
        languages = {language.split("_")[0] for direction in self.directions for language in direction}
        return bool(languages & set(_MANY_CHARACTERS))

    def split(self, name: str, direction: Pair) -> str:
        """How the files of a split are named: with the direction where there are several."""
        return f"{name}.{'-'.join(direction)}" if self.multilingual else name

    def to_json(self) -> Dict[str, Any]:
        """What tells this recipe from another, as JSON reads it back."""
        known: Dict[str, Any] = {"corpus": self.corpus, "vocabulary": self.vocabulary, "maximum": self.maximum}
        if self.multilingual:
            known["directions"] = [list(direction) for direction in self.directions]
        else:
            known.update(zip(("source", "target"), self.directions[0]), tokenizer="sentencepiece")
        # finished runs have neither of these keys
        known.update({"lowercase": True} if self.lowercase else {})
        known.update({"validation_every": self.validation_every} if self.validation_every else {})
        return known


def prepare_sentencepiece(corpora: Dict[Pair, Corpus], recipe: SentencePieceRecipe, folder: Path) -> Prepared:
    """Prepare one corpus per direction in ``folder``, which is complete when this returns and absent if it does not.

    Raises:
        UserError: a folder with files of the user's own, an empty split, fewer units than the text has characters, a
            sentence that :func:`filter_by_length` refuses, a process that was killed.
    """
    tests = [split for split in next(iter(corpora.values())) if split not in ("train", "valid")]
    splits = ["train", "valid", *tests]
    with atomic_directory(folder, Prepared(folder).check_replaceable) as work:
        files = Prepared(work)
        first = Prepared(work / "first")
        for direction, corpus in corpora.items():
            written: CounterType[str] = Counter()
            for split, pairs in corpus.items():
                short = filter_by_length(pairs, _same, excess_of_line, split, direction, split == "train")
                written += write_pairs(_named(short, recipe, split, direction), first, direction)
            refuse_empty(written, [recipe.split(split, direction) for split in splits])
        texts = [
            first.raw(recipe.split("train", direction), language) for direction in corpora for language in direction
        ]
        dictionary = _learn(texts, files, recipe)
        counts: CounterType[str] = Counter()
        for direction in corpora:
            names = {split: recipe.split(split, direction) for split in splits}
            for split, name in names.items():
                raw = zip(*(read_lines(first.raw(name, language)) for language in direction))
                pairs = ((source, target) for source, target in raw)
                maximum = recipe.maximum if split not in tests else None
                encode = partial(_encode, files.sentencepiece, maximum, recipe.keeps_forms)
                before, after = Counter(), Counter()  # type: CounterType[str], CounterType[str]
                pairs = counted(pairs, before, name)
                lines: Iterable[Line] = mapped(encode, pairs, recipe.workers, f"SentencePiece {name}")
                lines = counted(lines, after, name)
                if split == "train" or maximum is not None or (split == "valid" and recipe.validation_every):
                    lines = without_empty(lines, attrgetter("subwords"), name, direction)
                lines = filter_by_length(
                    lines, attrgetter("subwords"), excess_of_subwords, name, direction, split == "train"
                )
                counts += write_pairs(((name, line) for line in lines), files, direction)
                say_what_was_cleaned(name, before[name], after[name], f"at most {maximum} units on a side")
            refuse_empty(counts, names.values())
            prefixes = {split: work / "bpe" / name for split, name in names.items()}
            binarize(prefixes, direction, files.binarized, recipe.workers, dictionary)
        shutil.rmtree(first.folder)
        files.write_metadata(recipe.to_json(), counts, tests, recipe.scoring)
    return Prepared(folder)


def _same(pair: Pair) -> Pair:
    return pair


def _named(
    pairs: Iterable[Pair], recipe: SentencePieceRecipe, split: str, direction: Pair
) -> Iterator[Tuple[str, Line]]:
    """Each pair with the name of the split that it belongs to: of the training set, every n-th is for validation."""
    for number, pair in enumerate(pairs, 1):
        cut = split == "train" and recipe.validation_every is not None and number % recipe.validation_every == 0
        yield recipe.split("valid" if cut else split, direction), Line(pair)


def _learn(texts: List[Path], files: Prepared, recipe: SentencePieceRecipe) -> Path:
    """Learn the units of all ``texts`` together, fewer where they give no more, as with BPE; the path of fairseq's
    dictionary of them."""
    # Unicode's compatibility forms would make "," of the full-width comma that Chinese is written and scored with
    rule = "identity" if recipe.keeps_forms else "nmt_nfkc"
    train = partial(
        sentencepiece.SentencePieceTrainer.train,
        input=",".join(map(str, texts)),
        model_prefix=str(files.sentencepiece.with_suffix("")),
        character_coverage=0.9995 if recipe.keeps_forms else 1.0,
        model_type="bpe",
        num_threads=recipe.workers,
        minloglevel=2,
        normalization_rule_name=f"{rule}_cf" if recipe.lowercase and not recipe.keeps_forms else rule,
    )
    try:
        train(vocab_size=recipe.vocabulary)
    except RuntimeError as error:
        most = re.search(r"value <= (\d+)", str(error))
        if most is None:
            raise UserError(_too_few(str(error), recipe.vocabulary)) from None
        print(f"the training set gives {most.group(1)} SentencePiece units, not {recipe.vocabulary}", file=sys.stderr)
        train(vocab_size=int(most.group(1)))
    model = load_sentencepiece(files.sentencepiece)
    units = (model.id_to_piece(number) for number in range(model.get_piece_size()) if not _special(model, number))
    dictionary = files.folder / "dict.txt"
    # fairseq wants a count of every unit, and uses it for nothing here
    write_lines(dictionary, (f"{unit} 1" for unit in units))
    return dictionary


def _too_few(error: str, vocabulary: int) -> str:
    """What SentencePiece says about a vocabulary that is too small for the text, in one line."""
    least = re.search(r"required_chars\D+\d+\D+(\d+)|smaller than required_chars. (\d+) vs (\d+)", error)
    if least:
        return f"{vocabulary} SentencePiece units are fewer than the training set has characters: {least.group(0)}"
    return f"SentencePiece cannot learn {vocabulary} units: {' '.join(error.split())}"


def _special(model: sentencepiece.SentencePieceProcessor, number: int) -> bool:
    return model.is_control(number) or model.is_unknown(number)


def spaces_only(text: str) -> str:
    """``text`` with a space for each control character and each other kind of white space."""
    return "".join(" " if unicodedata.category(letter) in ("Cc", "Zl", "Zp", "Zs") else letter for letter in text)


def _encode(path: Path, maximum: Optional[int], keeps_forms: bool, pairs: List[Pair]) -> List[Line]:
    model = load_sentencepiece(path)
    lines = []
    for pair in pairs:
        source, target = (model.encode(spaces_only(text) if keeps_forms else text, out_type=str) for text in pair)
        if maximum is None or max(len(source), len(target)) <= maximum:
            lines.append(Line(pair, subwords=(" ".join(source), " ".join(target))))
    return lines


@lru_cache(maxsize=1)
def load_sentencepiece(path: Path) -> sentencepiece.SentencePieceProcessor:
    """The units of a corpus."""
    return sentencepiece.SentencePieceProcessor(model_file=str(path))

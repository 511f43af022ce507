"""From raw sentence pairs to what ``fairseq-train`` reads: tokenized, in joint BPE, binarized.

Three passes over files, none of which is ever entirely in memory: tokenize and clean, learn the BPE, apply it.

Moses' rules and BPE need the square of a length in time, and a model has only so many positions: a line of a megabyte
would take hours, or stop a training. Training pairs that are too long are left out, as Moses and fairseq leave them
out, and so are those with an empty side, which would teach a model to say nothing; a set that scores are computed on
keeps these, and is refused with the others, for they need every line of it.
"""

import shutil
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, TextIO, Tuple, TypeVar
from typing import Counter as CounterType

from tqdm import tqdm

from ..errors import UserError
from ..files import atomic_directory, read_lines, write_lines
from .apply_bpe import Segmenter
from .binarize import binarize
from .corpora.declaration import CleaningRule
from .learn_bpe import count_words, learn_merges
from .moses import (
    LONGEST_WORD,
    check_languages,
    lowercase,
    normalize_punctuation,
    passes_length_filter,
    remove_non_printing,
    tokenize,
)
from .parallel_map import mapped
from .prepared_corpus import Prepared
from .types import DEFAULT_SCORING, Corpus, DeclaredScoring, Pair

LONGEST_LINE = 20000  # characters of raw text
LONGEST_SENTENCE = 1023  # subwords: fairseq's models have 1,024 positions, and the end of a sentence takes one

Item = TypeVar("Item")


@dataclass(frozen=True)
class Recipe:
    """How a corpus is prepared; equal recipes give equal files."""

    corpus: str  # which text, and how it was split
    source: str
    target: str
    bpe_operations: int
    escape: bool = False  # Moses' tokens of & | < > ' " [ ], as in fairseq's scripts
    dash_splits: bool = True  # "a-b" → "a @-@ b"
    normalize: bool = False  # punctuation, and no control characters
    lowercase: bool = False
    clean: Optional[CleaningRule] = None
    validation_every: Optional[int] = None  # every n-th training pair is for validation instead
    workers: int = 1  # processes; of no influence on the files
    scoring: DeclaredScoring = DEFAULT_SCORING  # for those who score; of no influence on the files

    @property
    def name(self) -> str:
        return f"{self.source}-{self.target}"

    @property
    def languages(self) -> Pair:
        return self.source, self.target

    def to_json(self) -> Dict[str, Any]:
        """What tells this recipe from another, as JSON reads it back."""
        known = {name: value for name, value in asdict(self).items() if name not in ("workers", "scoring")}
        # finished runs spell this key so
        known["normalise"] = known.pop("normalize")
        return known


class Line(NamedTuple):
    """A sentence pair on its way: raw text, and what is known so far of its tokens and subwords."""

    raw: Pair
    tokens: Optional[Pair] = None
    subwords: Optional[Pair] = None


def prepare(corpus: Corpus, recipe: Recipe, folder: Path) -> Prepared:
    """Prepare ``corpus`` in ``folder``, which is complete when this returns and absent if it does not.

    Training pairs are cleaned, all others are kept: scores need every line of a test set. Those with an empty side take
    part in all that is learnt and counted before the subwords, so that the files of corpora that are cleaned by
    subwords do not depend on where they are left out.

    Raises:
        UserError: a language without Moses rules, a folder with files of the user's own, an empty split, a text too
            small for BPE, a sentence that :func:`filter_by_length` refuses, a process that was killed.
    """
    check_languages(recipe.languages)
    tests = [split for split in corpus if split not in ("train", "valid")]
    with atomic_directory(folder, Prepared(folder).check_replaceable) as work:
        files, first = Prepared(work), Prepared(work / "first")
        splits = ["train", "valid", *tests]
        counts, before, after = Counter(), Counter(), Counter()  # type: CounterType[str], CounterType[str], CounterType[str]
        for split, pairs in corpus.items():
            short = filter_by_length(
                pairs, lambda pair: pair, excess_of_line, split, recipe.languages, split == "train"
            )
            pairs = counted(short, before, split)
            lines = mapped(partial(_tokenize, recipe, split == "train"), pairs, recipe.workers, f"tokenize {split}")
            lines = counted(lines, after, split)
            counts += write_pairs(_split(lines, split, recipe.validation_every), first, recipe.languages)
            _say_what_was_cleaned(split, recipe.clean, before[split], after[split], "tokens")
        refuse_empty(counts, splits)
        learn_joint_bpe(
            [first.tokens("train", language) for language in recipe.languages],
            files.codes,
            recipe.bpe_operations,
            recipe.workers,
        )
        counts, before, after = Counter(), Counter(), Counter()
        for split in splits:
            apply_bpe = partial(_apply_bpe, files.codes, recipe.clean if split in ("train", "valid") else None)
            training = split not in corpus or split == "train"
            limits = split, recipe.languages, training
            lines = _read(first, split, recipe.languages)
            if training:
                lines = without_empty(lines, attrgetter("tokens"), split, recipe.languages)
            lines = filter_by_length(lines, attrgetter("tokens"), excess_of_words, *limits)
            lines = mapped(apply_bpe, counted(lines, before, split), recipe.workers, f"BPE {split}")
            lines = counted(lines, after, split)
            lines = filter_by_length(lines, attrgetter("subwords"), excess_of_subwords, *limits)
            counts += write_pairs(((split, line) for line in lines), files, recipe.languages)
            _say_what_was_cleaned(split, recipe.clean, before[split], after[split], "subwords")
        refuse_empty(counts, splits)
        shutil.rmtree(first.folder)
        binarize({split: work / "bpe" / split for split in splits}, recipe.languages, files.binarized, recipe.workers)
        files.write_metadata(recipe.to_json(), counts, tests, recipe.scoring)
    return Prepared(folder)


def learn_joint_bpe(texts: List[Path], codes: Path, operations: int, workers: int = 1) -> None:
    """Merge operations learnt on all ``texts`` together (Sennrich et al., 2016), in subword-nmt's file.

    Raises:
        UserError: there is none.
    """
    print(f"learning {operations} BPE operations", file=sys.stderr)
    merges = list(learn_merges(count_words(texts, workers), operations))
    if not merges:
        raise UserError("no two characters stand side by side twice in the training set: it is too small for BPE")
    write_lines(codes, ["#version: 0.2", *(f"{first} {second}" for first, second in merges)])


def to_tokens(recipe: Dict[str, Any], language: str, lines: List[str]) -> List[str]:
    """Raw ``lines`` as the tokens that ``recipe``, in the form of :meth:`Recipe.to_json`, makes of them."""
    if recipe["normalise"]:
        lines = remove_non_printing(normalize_punctuation(language, lines))
    tokens = tokenize(language, lines, recipe["escape"], recipe["dash_splits"])
    return lowercase(tokens) if recipe["lowercase"] else tokens


def _tokenize(recipe: Recipe, training: bool, pairs: List[Pair]) -> List[Line]:
    sides = (to_tokens(recipe.to_json(), language, list(side)) for language, side in zip(recipe.languages, zip(*pairs)))
    lines = [Line(pair, tokens) for pair, tokens in zip(pairs, zip(*sides))]
    return _clean(lines, recipe.clean, "tokens") if training else lines


def _apply_bpe(codes: Path, clean: Optional[CleaningRule], lines: List[Line]) -> List[Line]:
    bpe = load_bpe(codes)
    for number, line in enumerate(lines):
        assert line.tokens is not None
        source, target = map(bpe.process_line, line.tokens)
        lines[number] = line._replace(subwords=(source, target))
    return _clean(lines, clean, "subwords")


@lru_cache(maxsize=1)
def load_bpe(codes: Path) -> Segmenter:
    """The merge operations of :func:`learn_joint_bpe`."""
    return Segmenter(codes)


def _clean(lines: List[Line], rule: Optional[CleaningRule], unit: str) -> List[Line]:
    if rule is None or rule.unit != unit:
        return lines
    limits = (rule.ratio, rule.minimum, rule.maximum)
    sides = ((line, getattr(line, unit)) for line in lines)
    return [line for line, (source, target) in sides if passes_length_filter(source, target, *limits)]


def say_what_was_cleaned(split: str, before: int, after: int, rule: str) -> None:
    """A line on stderr, if pairs were left out: how many of how many, and the ``rule`` in words."""
    if after < before:
        left_out = f"{before - after:,} of {before:,} pairs left out by the cleaning rule"
        tqdm.write(f"{split}: {left_out}: {rule}", file=sys.stderr)


def counted(items: Iterable[Item], counts: CounterType[str], name: str) -> Iterator[Item]:
    """``items``, of which ``counts`` holds how many there have been."""
    for item in items:
        counts[name] += 1
        yield item


def _say_what_was_cleaned(split: str, rule: Optional[CleaningRule], before: int, after: int, unit: str) -> None:
    if rule and rule.unit == unit:
        limits = f"{max(rule.minimum, 1)} to {rule.maximum} {unit} on a side, at most {rule.ratio:g} times as many"
        say_what_was_cleaned(split, before, after, f"{limits} as on the other")


def _split(lines: Iterable[Line], split: str, validation_every: Optional[int]) -> Iterator[Tuple[str, Line]]:
    """Each line with the split it belongs to: of the training set, every n-th is for validation."""
    for number, line in enumerate(lines, 1):
        cut = split == "train" and validation_every is not None and number % validation_every == 0
        yield ("valid" if cut else split), line


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


def without_empty(items: Iterable[Item], sides: Callable[[Item], Pair], split: str, languages: Pair) -> Iterator[Item]:
    """``items`` of which no side is blank; a line on stderr says how many were left out."""
    left_out, first = 0, ""
    for number, item in enumerate(items, 1):
        blank = [language for language, side in zip(languages, sides(item)) if not side.strip()]
        if not blank:
            yield item
            continue
        left_out, first = left_out + 1, first or f"pair {number} ({', '.join(blank)})"
    if left_out:
        tqdm.write(f"{split}: {left_out} pairs left out for an empty side, the first is {first}", file=sys.stderr)


def write_pairs(lines: Iterable[Tuple[str, Line]], files: Prepared, languages: Pair) -> CounterType[str]:
    """Write ``lines``, each with its split, to the files of ``files``; how many went where."""
    counts: CounterType[str] = Counter()
    with ExitStack() as stack:

        @lru_cache(maxsize=None)
        def opened(place: Callable[[str, str], Path], split: str) -> List[TextIO]:
            """Files of a split, one per language."""
            paths = [place(split, language) for language in languages]
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            return [stack.enter_context(open(path, "w", encoding="utf-8", newline="\n")) for path in paths]

        for split, line in lines:
            for place, texts in ((files.raw, line.raw), (files.tokens, line.tokens), (files.subwords, line.subwords)):
                for file, text in zip(opened(place, split) if texts else (), texts or ()):
                    file.write(text + "\n")
            counts[split] += 1
    return counts


def refuse_empty(counts: CounterType[str], splits: Iterable[str]) -> None:
    """UserError where one of ``splits`` has no pair."""
    for split in splits:
        if not counts[split]:
            raise UserError(f"the {split} set is empty: the corpus is too small for what was asked for")


def _read(files: Prepared, split: str, languages: Pair) -> Iterator[Line]:
    paths = [place(split, language) for place in (files.raw, files.tokens) for language in languages]
    return (Line((a, b), (c, d)) for a, b, c, d in zip(*map(read_lines, paths)))

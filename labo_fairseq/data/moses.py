"""What Moses' Perl scripts do to text, in Python.

By sacremoses, patched where it differs from the scripts of Moses' commit 34452895 (2025): docs/moses.md has the
comparison. Lines are without their line break, and stay as many as they were.

sacremoses applies every rule to every line. Here a rule runs only on text that holds what it looks for, and words that
no rule touches pass as they are; the lines that come out are the same.
"""

import re
from functools import lru_cache
from typing import Callable, Iterable, List, Tuple

import regex
from sacremoses import MosesDetokenizer, MosesPunctNormalizer, MosesTokenizer
from sacremoses.corpus import NonbreakingPrefixes

from ..errors import UserError

#: characters; a pair with a longer word is dropped
LONGEST_WORD = 1000

#: codes of the languages whose abbreviations Moses knows; others it would treat as English
LANGUAGES = sorted(set(NonbreakingPrefixes().available_langs.values()))

#: control characters that Perl deletes; U+001C to U+001F are white space to Python
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f]")

#: runs of words whose tokens are remembered, and their characters at most
_REMEMBERED, _LONGEST_REMEMBERED = 1 << 18, 64


def check_languages(languages: Iterable[str]) -> None:
    """UserError names the first of ``languages`` that is none of :data:`LANGUAGES`."""
    for language in languages:
        if language not in LANGUAGES:
            raise UserError(f"no Moses rules for the language {language!r}: Moses has {', '.join(LANGUAGES)}")


def tokenize(language: str, lines: List[str], escape: bool = True, dash_splits: bool = False) -> List[str]:
    """``tokenizer.perl -l language``, with ``-a`` if ``dash_splits`` and ``-no-escape`` unless ``escape``."""
    tokenize_line = _line_tokenizer(language, escape, dash_splits)
    return [tokenize_line(line) for line in lines]


def detokenize(language: str, lines: List[str]) -> List[str]:
    """``detokenizer.perl -l language``."""
    detokenizer = MosesDetokenizer(language)
    return [detokenizer.detokenize(line.split()) for line in lines]


def normalize_punctuation(language: str, lines: List[str]) -> List[str]:
    """``normalize-punctuation.perl -l language`` for cs, de, en, es and fr."""
    rules = _punctuation_rules(language)
    return [_substitute(rules, line) for line in lines]


def remove_non_printing(lines: List[str]) -> List[str]:
    """``remove-non-printing-char.perl``: a space for each character of Unicode's category C."""
    # what is printable to Python is not of category C
    return [line if line.isprintable() else regex.sub(r"\p{C}", " ", line) for line in lines]


def lowercase(lines: List[str]) -> List[str]:
    """``lowercase.perl``."""
    # Python alone writes ς for Σ at the end of a word
    return [line.replace("Σ", "σ").lower() for line in lines]


def passes_length_filter(source: str, target: str, ratio: float, minimum: int, maximum: int) -> bool:
    """Whether ``clean-corpus-n.perl -ratio ratio … minimum maximum`` keeps a pair of tokenized lines.

    Without escaping, ``|`` separates factors in Moses: the script takes it out of text without factors before
    it counts, and so does this; the caller's lines keep it.
    """
    sides = [side.replace("|", "").split() for side in (source, target)]
    lengths = [len(words) for words in sides]
    if min(lengths) < max(minimum, 1) or max(lengths) > maximum or max(lengths) / min(lengths) > ratio:
        return False
    long_enough = (words for text, words in zip((source, target), sides) if len(text) > LONGEST_WORD)
    return all(len(word) <= LONGEST_WORD for words in long_enough for word in words)


class _Tokenizer(MosesTokenizer):
    """sacremoses with Moses' rule of 2018: the last word's full stop is a token whatever the word is."""

    # Perl's letters and digits; sacremoses' own lists lack 120,000, all of Han and Hangul among them
    PAD_NOT_ISALNUM = regex.compile(r"([^\p{Alphabetic}\p{Nd}\s.'`,\-])"), r" \1 "
    AGGRESSIVE_HYPHEN_SPLIT = regex.compile(r"([\p{Alphabetic}\p{Nd}])-(?=[\p{Alphabetic}\p{Nd}])"), r"\1 @-@ "

    _LOWER, _ALPHABETIC = frozenset(MosesTokenizer.IsLower), frozenset(MosesTokenizer.IsAlpha)

    # sacremoses makes these sets anew for every word
    def islower(self, text: str) -> bool:
        return self._LOWER.issuperset(text)

    def isanyalpha(self, text: str) -> bool:
        return not self._ALPHABETIC.isdisjoint(text)

    def handles_nonbreaking_prefixes(self, text: str) -> str:
        return re.sub(r"(?<=\S)\.$", " .", super().handles_nonbreaking_prefixes(text))


@lru_cache(maxsize=None)
def _line_tokenizer(language: str, escape: bool, dash_splits: bool) -> Callable[[str], str]:
    """Tokenizes a line at a time.

    Words of letters, or of digits, are tokens as they are. Of a run of other words sacremoses sees only the run, with a
    word before and after it where there is one: rules look no further than to the first letter of the next word, to see
    whether it is small or a digit.
    """
    tokenizer = _Tokenizer(language)

    def tokenize_text(text: str) -> str:
        return tokenizer.tokenize(text, aggressive_dash_splits=dash_splits, return_str=True, escape=escape)

    def tokenize_run(run: str, before: str, after: str) -> str:
        text = tokenize_text(before + run + after)
        return text[len(before) : len(text) - len(after)]

    remembered = lru_cache(maxsize=_REMEMBERED)(tokenize_run)

    def tokenize_words(words: List[str], first: bool, next_letter: str) -> str:
        after = " x" if tokenizer.islower(next_letter) else " 1" if next_letter in "0123456789" else " X"
        run = " ".join(words)
        function = remembered if len(run) <= _LONGEST_REMEMBERED else tokenize_run
        return function(run, "" if first else "x ", after if next_letter else "")

    def tokenize_line(line: str) -> str:
        line = _CONTROL.sub("", line)
        if "DOTMULTI" in line:  # which stands for dots inside sacremoses
            return tokenize_text(line)
        tokens: List[str] = []
        run: List[str] = []
        for word in line.split():
            if word.isalpha() or word.isdecimal():
                text = word
            elif word[-1] in ",;:?!" and word[:-1].isalpha():
                text = f"{word[:-1]} {word[-1]}"
            else:
                run.append(word)
                continue
            if run:
                tokens.append(tokenize_words(run, not tokens, word[0]))
                run.clear()
            tokens.append(text)
        if run:
            tokens.append(tokenize_words(run, not tokens, ""))
        return " ".join(tokens)

    return tokenize_line


@lru_cache(maxsize=None)
def _punctuation_rules(language: str) -> List[Tuple[str, "re.Pattern[str]", str]]:
    """What a text must hold for a rule to change it, the rule's pattern, and its replacement.

    The script works on bytes: digits and spaces are ASCII alone.
    """
    rules = MosesPunctNormalizer(language, perl_parity=True).substitutions
    return [(_required(pattern), re.compile(pattern, re.ASCII), replacement) for pattern, replacement in rules]


def _required(pattern: str) -> str:
    """Text without which ``pattern`` matches nothing, or nothing that its rule changes; "" where that is not known."""
    if pattern == " +":  # of one space its rule makes one space
        return "  "
    outside_groups = re.sub(r"(?<!\\)\((?:\\.|[^()\\])*\)", "", pattern)
    is_literal = not re.search(r"[\\\[\](){}|*+?.^$]", re.sub(r"\\\W", "", outside_groups))
    return re.sub(r"\\(\W)", r"\1", outside_groups) if is_literal else ""


def _substitute(rules: List[Tuple[str, "re.Pattern[str]", str]], line: str) -> str:
    """Rules of a normalizer, whose own method takes off the ends of a line.

    The scripts see the line break, so that ``."`` at the end of a line is one of their cases.
    """
    text = line + "\n"
    for required, pattern, replacement in rules:
        if required in text:
            text = pattern.sub(replacement, text)
    return text[:-1]

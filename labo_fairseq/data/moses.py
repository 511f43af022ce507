"""What Moses' Perl scripts do to text, in Python.

By sacremoses, patched where it differs from the scripts of Moses' commit 34452895 (2025): docs/moses.md has the
comparison. Lines are without their line break, and stay as many as they were.
"""

import re
from functools import lru_cache
from typing import Iterable, List, Tuple

import regex
from sacremoses import MosesDetokenizer, MosesPunctNormalizer, MosesTokenizer
from sacremoses.corpus import NonbreakingPrefixes

from ..errors import UserError

#: characters; a pair with a longer word is dropped
LONGEST_WORD = 1000

#: codes of the languages whose abbreviations Moses knows; others it would treat as English
LANGUAGES = sorted(set(NonbreakingPrefixes().available_langs.values()))

#: white space to Python, but not to Perl, which deletes them with the other control characters
_SEPARATORS = re.compile("[\x1c-\x1f]")


def check_languages(languages: Iterable[str]) -> None:
    """UserError names the first of ``languages`` that is none of :data:`LANGUAGES`."""
    for language in languages:
        if language not in LANGUAGES:
            raise UserError(f"no Moses rules for the language {language!r}: Moses has {', '.join(LANGUAGES)}")


def tokenize(language: str, lines: List[str], escape: bool = True, dash_splits: bool = False) -> List[str]:
    """``tokenizer.perl -l language``, with ``-a`` if ``dash_splits`` and ``-no-escape`` unless ``escape``."""
    tokenizer = _tokenizer(language)
    return [
        tokenizer.tokenize(
            _SEPARATORS.sub("", line), aggressive_dash_splits=dash_splits, return_str=True, escape=escape
        )
        for line in lines
    ]


def detokenize(language: str, lines: List[str]) -> List[str]:
    """``detokenizer.perl -l language``."""
    detokenizer = MosesDetokenizer(language)
    return [detokenizer.detokenize(line.split()) for line in lines]


def normalize_punctuation(language: str, lines: List[str]) -> List[str]:
    """``normalize-punctuation.perl -l language`` for cs, de, en, es and fr."""
    rules = MosesPunctNormalizer(language, perl_parity=True).substitutions
    return [_substitute(rules, line) for line in lines]


def remove_non_printing(lines: List[str]) -> List[str]:
    """``remove-non-printing-char.perl``: a space for each character of Unicode's category C."""
    return [regex.sub(r"\p{C}", " ", line) for line in lines]


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
    return all(len(word) <= LONGEST_WORD for words in sides for word in words)


class _Tokenizer(MosesTokenizer):
    """sacremoses with Moses' rule of 2018: the last word's full stop is a token whatever the word is."""

    # Perl's letters and digits; sacremoses' own lists lack 120,000, all of Han and Hangul among them
    PAD_NOT_ISALNUM = regex.compile(r"([^\p{Alphabetic}\p{Nd}\s.'`,\-])"), r" \1 "
    AGGRESSIVE_HYPHEN_SPLIT = regex.compile(r"([\p{Alphabetic}\p{Nd}])-(?=[\p{Alphabetic}\p{Nd}])"), r"\1 @-@ "

    def handles_nonbreaking_prefixes(self, text: str) -> str:
        return re.sub(r"(?<=\S)\.$", " .", super().handles_nonbreaking_prefixes(text))


@lru_cache(maxsize=None)
def _tokenizer(language: str) -> MosesTokenizer:
    return _Tokenizer(language)


def _substitute(rules: List[Tuple[str, str]], line: str) -> str:
    """Rules of a normalizer, whose own method takes off the ends of a line.

    The scripts see the line break, so that ``."`` at the end of a line is one of their cases, and only ASCII
    digits and spaces, because they work on bytes.
    """
    text = line + "\n"
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text, flags=re.ASCII)
    return text[:-1]

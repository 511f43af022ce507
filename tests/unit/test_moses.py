"""Text processing against what Moses' Perl scripts (commit 34452895) print for the same lines.

With LABO_MOSES, the folder of a Moses checkout, and the shared text, also against the scripts themselves.
"""

import os
import random
import re
import subprocess
from pathlib import Path

import campaign
import pytest
from sacremoses import MosesPunctNormalizer, MosesTokenizer

from labo_fairseq.data import moses
from labo_fairseq.data.moses import (
    detokenize,
    lowercase,
    normalize_punctuation,
    passes_length_filter,
    remove_non_printing,
    tokenize,
)

pytestmark = pytest.mark.once

# language, line, tokenizer.perl, tokenizer.perl -a -no-escape
TOKENS = [
    ("en", "The U.S.A. is big, isn't it?", "The U.S.A. is big , isn &apos;t it ?", "The U.S.A. is big , isn 't it ?"),
    ("en", "I saw it in the U.S.", "I saw it in the U.S .", "I saw it in the U.S ."),
    ("en", "No. 5 and Mr. Smith, etc.", "No. 5 and Mr. Smith , etc .", "No. 5 and Mr. Smith , etc ."),
    ("en", "It costs $3,000.50 (1,5 %).", "It costs $ 3,000.50 ( 1,5 % ) .", "It costs $ 3,000.50 ( 1,5 % ) ."),
    ("en", '"Don\'t," she said', "&quot; Don &apos;t , &quot; she said", '" Don \'t , " she said'),
    ("en", "The dogs' 1990's rock'n'roll.", "The dogs &apos; 1990 &apos;s rock &apos;n&apos;roll .", None),
    ("en", "http://www.a-b.com/c?d=e&f=1", "http : / / www.a-b.com / c ? d = e &amp; f = 1", None),
    ("en", "me@x.org a-b", "me @ x.org a-b", "me @ x.org a @-@ b"),
    ("en", "a|b [c] <d> & e", "a &#124; b &#91; c &#93; &lt; d &gt; &amp; e", "a | b [ c ] < d > & e"),
    ("en", "Well... no.. yes", "Well ... no .. yes", "Well ... no .. yes"),
    ("en", "A state-of-the-art co-op", "A state-of-the-art co-op", "A state @-@ of @-@ the @-@ art co @-@ op"),
    ("en", "He said 'stop.'", "He said &apos; stop . &apos; ", "He said ' stop . ' "),
    ("en", "  two   spaces\tand a tab ", "two spaces and a tab", "two spaces and a tab"),
    ("en", "A,B,C and 1,2,3,", "A , B , C and 1,2,3 ,", "A , B , C and 1,2,3 ,"),
    ("en", "`x` at 3 p.m. today", "`x` at 3 p.m. today", "`x` at 3 p.m. today"),
    ("en", "one\x1fword, two\x1c words", "oneword , two words", "oneword , two words"),
    ("en", "3/4 中文-한 b", "3 / 4 中文-한 b", "3 / 4 中文 @-@ 한 b"),
    ("de", "Das war z.B. am 3. Mai usw.", "Das war z.B. am 3. Mai usw .", "Das war z.B. am 3. Mai usw ."),
    ("de", "„Ja, das geht’s.“", "„ Ja , das geht ’ s. “", "„ Ja , das geht ’ s. “"),
    ("de", "Peter's 4-Zimmer-Wohnung", "Peter &apos; s 4-Zimmer-Wohnung", "Peter ' s 4 @-@ Zimmer @-@ Wohnung"),
    ("de", "Über 1.000,50 € & mehr", "Über 1.000,50 € &amp; mehr", "Über 1.000,50 € & mehr"),
    ("de", "Nr. 5, Dr. Müller, Prof. Groß.", "Nr. 5 , Dr. Müller , Prof. Groß .", "Nr. 5 , Dr. Müller , Prof. Groß ."),
    ("fr", "C'est l'ami aujourd'hui", "C&apos; est l&apos; ami aujourd&apos; hui", "C' est l' ami aujourd' hui"),
    ("fr", "une œuvre d'art.", "une œuvre d&apos; art .", "une œuvre d' art ."),
    ("fr", "« Ça va ? » dit-elle ; oui !", "« Ça va ? » dit-elle ; oui !", "« Ça va ? » dit @-@ elle ; oui !"),
    ("fr", "Les années '90 : 3,5 ans", "Les années &apos; 90 : 3,5 ans", "Les années ' 90 : 3,5 ans"),
]

PUNCTUATION = [
    ("en", "“Yes”, he said.", '"Yes," he said.'),
    ("en", "don’t ‘stop’ … now — or", "don't 'stop\" ... now - or"),
    ("en", "12\u00a0000 ( a ) 5 % ;", "12.000 (a) 5%;"),
    ("en", " lead ", " lead "),
    ("de", 'Er sagte "Ja", "so."', 'Er sagte "Ja", "so".'),
    ("de", "„Nein“ , 12\u00a0000", '"Nein" , 12,000'),
    ("de", 'a ."<b>', 'a ."<b>'),
    ("fr", "«\u00a0Oui\u00a0» :", '"Oui":'),
    ("fr", "l’ami\u00a0!", "l'ami!"),
    ("fr", 'a ( b ) , "c,"', 'a (b), "c",'),
]

DETOKENIZED = [
    ("en", "the Jones 's house and the boys ' dog", "the Jones's house and the boys' dog"),
    ("en", "He said &quot; no &quot; ( twice ) .", 'He said "no" (twice).'),
    ("en", "$ 5 @-@ a @-@ day , &amp;c ; it 's 5 % !", "$5-a-day, &c; it's 5%!"),
    ("fr", "l&apos; homme qu&apos; il a vu ?", "l'homme qu'il a vu ?"),
    ("de", "&quot; Ja &quot; , sagte er ; Peter &apos;s Auto", '"Ja", sagte er; Peter \'s Auto'),
    ("de", "„ Nein “ , 4 @-@ Zimmer", "„Nein“, 4-Zimmer"),
]


@pytest.mark.parametrize(("language", "line", "plain", "aggressive"), TOKENS)
def test_tokens(language, line, plain, aggressive):
    assert tokenize(language, [line]) == [plain]
    if aggressive is not None:
        assert tokenize(language, [line], escape=False, dash_splits=True) == [aggressive]


@pytest.mark.parametrize(("language", "line", "expected"), PUNCTUATION)
def test_punctuation(language, line, expected):
    assert normalize_punctuation(language, [line]) == [expected]


@pytest.mark.parametrize(("language", "line", "expected"), DETOKENIZED)
def test_detokenised(language, line, expected):
    assert detokenize(language, [line]) == [expected]


def test_lower_case():
    assert lowercase(["ÄÖÜ ÉŒ İ ẞ ΑΣ Σ I"]) == ["äöü éœ i̇ ß ασ σ i"]


def test_control_characters():
    assert remove_non_printing(["a\u00adb\u200bc\x07d\u00a0e\ufefff"]) == ["a b c d\u00a0e f"]


@pytest.mark.parametrize(
    ("source", "target", "kept"),
    [
        ("a b c", "a b", True),
        ("a b c d", "a b", False),
        ("a b", "a b c", True),
        ("a b", "a b c d", False),
        ("a", "a", False),
        ("a b c d e", "a b c d", True),
        ("a b c d e f", "a b c d e", False),
        ("", "", False),
        (" \t ", "a b", False),
        ("a | b |", "a b c", True),
        ("a |", "a b", False),
        ("a b", f"a {'é' * 1000}", True),
        ("a b", f"a {'é' * 1001}", False),
    ],
)
def test_clean_corpus(source, target, kept):
    """As of ``clean-corpus-n.perl -ratio 1.5 … 2 5``."""
    assert passes_length_filter(source, target, 1.5, 2, 5) is kept


#: what some rule of the tokenizer or of the normalizer looks for, and what stands beside it
PARTS = [
    *(
        "a",
        "Ä",
        "ß",
        "z.B",
        "Nr",
        "No",
        "Mr",
        "usw",
        "U.S",
        "5",
        "3,4",
        "1.000",
        "٣",
        "²",
        "½",
        "Ⅷ",
        "中",
        "é",
        "e\u0301",
    ),
    *(".", "..", "...", ",", ";", ":", "?", "!", "'", "''", "`", "``", '"', "-", "--", "@-@", "/", "%", "$", "€", "&"),
    *("|", "[", "]", "(", ")", "<", ">", "_", "„", "“", "”", "‘", "’", "‚", "´", "–", "—", "…", "«", "»", "nº", "ºC"),
    *("DOT", "MULTI", "DOTMULTI", "THISISPROTECTED", "\x00", "\x01", "\x1c", "\x1f", "\x85", "\u00a0", "\u00ad"),
    *("\u2009", "\u2028", "\u3000", "cm", "s", "S", "'s", "n't", "x" * 70),
]


def random_lines(number):
    """Up to twelve of :data:`PARTS`, a space or two between some of them."""
    draw = random.Random(21)
    spaces = ["", "", " ", " ", "  ", "\t"]
    return ["".join(draw.choice(PARTS) + draw.choice(spaces) for _ in range(draw.randrange(13))) for _ in range(number)]


class EveryRule(MosesTokenizer):
    """sacremoses with every rule on every line, as it is but for what docs/moses.md calls patched."""

    PAD_NOT_ISALNUM = moses._Tokenizer.PAD_NOT_ISALNUM
    AGGRESSIVE_HYPHEN_SPLIT = moses._Tokenizer.AGGRESSIVE_HYPHEN_SPLIT

    def handles_nonbreaking_prefixes(self, text):
        return re.sub(r"(?<=\S)\.$", " .", super().handles_nonbreaking_prefixes(text))


@pytest.mark.parametrize("language", ["de", "en", "fr"])
def test_passing_over_plain_words_changes_no_token(language):
    tokenizer = EveryRule(language)
    for number, line in enumerate(random_lines(3000)):
        dash_splits, escape = bool(number % 2), bool(number % 3)
        clean = re.sub("[\x1c-\x1f]", "", line)
        expected = tokenizer.tokenize(clean, aggressive_dash_splits=dash_splits, return_str=True, escape=escape)
        assert tokenize(language, [line], escape, dash_splits) == [expected], repr(line)


@pytest.mark.parametrize("language", ["cs", "de", "en", "es", "fr", "ru"])
def test_passing_over_rules_changes_no_punctuation(language):
    rules = MosesPunctNormalizer(language, perl_parity=True).substitutions
    changed = 0
    for line in random_lines(2000):
        expected = line + "\n"
        for pattern, replacement in rules:
            expected = re.sub(pattern, replacement, expected, flags=re.ASCII)
        assert normalize_punctuation(language, [line]) == [expected[:-1]], repr(line)
        changed += expected[:-1] != line
    assert changed > 1000


def perl(script, options, lines):
    """What a script of the Moses checkout makes of ``lines``."""
    command = ["perl", str(Path(os.environ["LABO_MOSES"]) / "scripts/tokenizer" / script), *options]
    text = "".join(line + "\n" for line in lines).encode()
    return subprocess.run(command, input=text, stdout=subprocess.PIPE, check=True).stdout.decode().split("\n")[:-1]


@pytest.mark.skipif("LABO_MOSES" not in os.environ, reason="no Perl scripts: set LABO_MOSES to a checkout of Moses")
@pytest.mark.parametrize("language", ["de", "en", "fr"])
def test_real_text_against_the_scripts(language):
    """Every line of the shared TED and Multi30k text."""
    lines = [line for split in campaign.MULTI30K for line in campaign.multi30k(split, language)]
    if language != "fr":
        lines += campaign.ted_text(language)
    chosen = ["-q", "-l", language]
    for dash_splits in (False, True):
        for escape in (False, True):
            options = [*chosen, *["-a"] * dash_splits, *["-no-escape"] * (not escape)]
            tokens = perl("tokenizer.perl", options, lines)
            assert tokenize(language, lines, escape, dash_splits) == tokens
            assert detokenize(language, tokens) == perl("detokenizer.perl", chosen, tokens)
    assert normalize_punctuation(language, lines) == perl("normalize-punctuation.perl", chosen[1:], lines)
    assert remove_non_printing(lines) == perl("remove-non-printing-char.perl", [], lines)
    assert lowercase(lines) == perl("lowercase.perl", [], lines)

"""Directions as users write them, and what follows from the name of a language."""

import pytest

from labo_fairseq.data.languages import has_moses_rules, language_token, parse_direction
from labo_fairseq.data.types import DeclaredScoring, bleu_tokenizer
from labo_fairseq.errors import UserError


@pytest.mark.parametrize(
    ("text", "direction"),
    [
        ("de-en", ("de", "en")),
        ("DE-EN", ("de", "en")),
        ("pt-br-en", ("pt_br", "en")),
        ("en-pt-br", ("en", "pt_br")),
        ("pt-BR-en", ("pt_br", "en")),
        ("pt_br-en", ("pt_br", "en")),
        ("pt_br-fr", ("pt_br", "fr")),
        ("pt-br_fr", ("pt", "br_fr")),
        ("pt-BR-fr-CA", ("pt_br", "fr_ca")),
        ("zh-Hant-en", ("zh_hant", "en")),
        ("en-zh-hans", ("en", "zh_hans")),
        ("zh-hant-tw-en", ("zh_hant_tw", "en")),
        ("sr-Latn-RS-en", ("sr_latn_rs", "en")),
        ("es-419-en", ("es_419", "en")),
        ("pt-br", ("pt", "br")),
    ],
)
def test_direction(text, direction):
    assert parse_direction(text) == direction
    assert parse_direction("-".join(direction)) == direction


@pytest.mark.parametrize(
    "text", ["", "de", "de-", "-en", "de-de", "german", "de--en", "a-b", "d3-en", "de-en-", "de/en"]
)
def test_no_direction(text):
    with pytest.raises(UserError, match="is no direction: write two languages as in de-en or pt_br-en"):
        parse_direction(text)


@pytest.mark.parametrize(("text", "ways"), [("pt-br-fr", "pt-br_fr or pt_br-fr"), ("xx-yy-zz", "xx-yy_zz or xx_yy-zz")])
def test_ambiguous_direction(text, ways):
    """Breton is a language and Brazil a region."""
    with pytest.raises(UserError, match=f"the direction '{text}' can be read in 2 ways: write {ways}$"):
        parse_direction(text)


def test_languages_without_moses_rules():
    assert all(map(has_moses_rules, ("de", "en", "fr", "cs", "ru")))
    assert not any(map(has_moses_rules, ("zh", "ja", "ko", "vi", "th", "tr", "ar", "hi", "pt_br", "xx")))


def test_tokenizer_of_bleu():
    languages = ("zh", "zh_hant", "yue", "ja", "ko", "de", "vi", "pt_br")
    expected = ["zh", "zh", "zh", "ja-mecab", "ko-mecab", "13a", "13a", "13a"]
    assert [bleu_tokenizer(language) for language in languages] == expected


def test_language_token():
    assert language_token([("de", "en"), ("fr", "en")]) == "src"
    assert language_token([("en", "de"), ("en", "fr")]) == "tgt"


def test_a_tokenizer_that_cannot_be_used_is_told_before_training():
    pytest.importorskip("sacrebleu")
    try:
        import MeCab  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"BLEU of ja needs .* 'ja-mecab', .*: pip install 'labo-fairseq\[ja\]'"):
            DeclaredScoring().check(["en", "ja"])
    with pytest.raises(UserError, match="sacreBLEU has no tokenizer 'x': choose from"):
        DeclaredScoring(tokenize="x").check(["en"])
    DeclaredScoring().check(["en", "zh"])

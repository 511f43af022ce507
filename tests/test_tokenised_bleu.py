"""Tokenised BLEU against what Moses' ``multi-bleu.perl`` (commit 34452895) prints for the same lines."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labo_fairseq.errors import UserError
from labo_fairseq.evaluation.metrics import split_compounds, tokenised_bleu

REFERENCES = ["the cat sat on the mat .", "a small dog barked at him", "it is raining again today , is it not ?"]


@pytest.mark.parametrize(
    ("hypotheses", "printed"),
    [
        (REFERENCES, "100.00"),
        (["the cat sat on a mat .", "a dog barked at him", "it is raining today , is it not ?"], "59.64"),
        (["the cat on mat .", "dog", "it rains"], "0.00"),  # no 3-gram matches
        (["mat the on sat cat the .", "x", "y"], "0.00"),  # no 2-gram matches
        (
            [
                "the cat sat on the mat . the end of it",
                "a small dog barked at him twice or more",
                "it is raining again today , is it not ? yes",
            ],
            "69.20",  # longer than the references: no penalty
        ),
        (["the cat sat", "", "it is raining again today , is"], "27.25"),  # the penalty alone
        (["the the the the the the the the the cat sat on"] * 3, "7.47"),  # matches are clipped
    ],
)
def test_corpus(hypotheses, printed):
    assert f"{tokenised_bleu(hypotheses, REFERENCES).value:.2f}" == printed


def test_shorter_than_four_words_is_zero():
    assert tokenised_bleu(["a b c"], ["a b c"]).value == 0


def test_nothing_translated_is_zero():
    assert tokenised_bleu(["", ""], ["a b c d e", "f"]).value == 0


def test_tokens_stay_as_they_are():
    """sacreBLEU's own tokeniser would split these, and unescape the second."""
    assert tokenised_bleu(["z.B. 4-5 &quot; x"], ["z.B. 4-5 &quot; x"]).value == pytest.approx(100)
    assert tokenised_bleu(["z.B. 4-5 a b &amp;"], ["z.B. 4-5 a b &"]).value < 100


def test_score_says_what_was_done():
    score = tokenised_bleu(["a b c d"], ["a b c d"])
    assert (score.name, score.signature) == ("BLEU (tokenised)", "tokenised, multi-bleu compatible")
    score = tokenised_bleu(["a b c d"], ["a b c d"], "lower case")
    assert score.name == "BLEU (tokenised, lower case)"
    assert score.signature == "tokenised, multi-bleu compatible, lower case"


@pytest.mark.parametrize(("hypotheses", "references"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_nothing_to_score(hypotheses, references):
    with pytest.raises(UserError, match="cannot be scored"):
        tokenised_bleu(hypotheses, references)


PAIRS = st.lists(st.tuples(*[st.lists(st.sampled_from("abc"), max_size=8).map(" ".join)] * 2), min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(PAIRS, st.randoms())
def test_order_of_the_lines_does_not_matter(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    value = tokenised_bleu(*zip(*pairs)).value
    assert 0 <= value <= 100 + 1e-9
    assert tokenised_bleu(*zip(*shuffled)).value == pytest.approx(value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a state-of-the-art idea", "a state ##AT##-##AT## of ##AT##-##AT## the ##AT##-##AT## art idea"),
        ("x - y -- z -w v-", "x - y -- z -w v-"),
        ("a-b-c", "a ##AT##-##AT## b-c"),
        ("face-à-face", "face ##AT##-##AT## à ##AT##-##AT## face"),
        ("rich @-@ text", "rich ##AT##-##AT## text"),
    ],
)
def test_compounds(line, expected):
    """The last was tokenised with ``-a``, all others are literally what get_ende_bleu.sh makes of the line."""
    assert split_compounds([line]) == [expected]

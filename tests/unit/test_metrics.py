"""The registry of scores, each against sacreBLEU or against what the program printed that papers score with."""

import json
import sys

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF, TER

from labo_fairseq.data.types import Scoring
from labo_fairseq.errors import UserError
from labo_fairseq.evaluation.metrics import (
    COMET_VARIABLE,
    METRICS,
    Texts,
    Translation,
    default_metrics,
    find_metric,
    score,
    sentence_statistics,
    split_compounds,
)

REFERENCES = ["the cat sat on the mat .", "a small dog barked at him", "it is raining again today , is it not ?"]


def scored(key, hypotheses, references, scoring=None):
    texts = Texts(references, hypotheses, references)
    return score(METRICS[key], Translation(texts, texts), scoring)


# sacreBLEU's


@pytest.mark.parametrize(
    ("key", "metric", "scoring"),
    [
        ("bleu", BLEU(), None),
        ("bleu", BLEU(lowercase=True), Scoring(lowercase=True)),
        ("bleu", BLEU(tokenize="zh"), Scoring(tokenize="zh")),
        ("chrf", CHRF(), None),
        ("chrf++", CHRF(word_order=2, lowercase=True), Scoring(lowercase=True)),
        ("ter", TER(case_sensitive=True), None),
        ("ter", TER(case_sensitive=True, normalized=True, asian_support=True), Scoring(tokenize="ja-mecab")),
    ],
)
def test_sacrebleus_value_and_signature(key, metric, scoring):
    hypotheses, references = (
        ["The cat sat on the mat .", "一只 小 狗 dog"],
        ["the cat sat on the mat .", "a 小 狗 barked"],
    )
    actual = scored(key, hypotheses, references, scoring)
    expected = metric.corpus_score(hypotheses, [references])
    assert actual.value == expected.score
    assert actual.name == expected.name, "as finished runs have recorded it"
    assert actual.signature == str(metric.get_signature())
    assert f"version:{sacrebleu.__version__}" in actual.signature
    assert str(actual) == f"{actual.name} {actual.value:.2f}  ({actual.signature})"
    assert actual.to_json() == {"name": actual.name, "value": actual.value, "signature": actual.signature}


LINES = st.lists(st.tuples(*[st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join)] * 2), min_size=1, max_size=6)


@pytest.mark.parametrize("key", ["bleu", "chrf", "chrf++", "ter", "tokenized", "compounds"])
@settings(max_examples=100, deadline=None)
@given(LINES)
def test_sums_over_sentences_give_the_score(key, pairs):
    """Of a few short lines, which is where smoothing, empty lines and missing orders are."""
    hypotheses, references = (list(side) for side in zip(*pairs))
    metric = METRICS[key]
    texts = Texts(references, hypotheses, references)
    rows = sentence_statistics(metric, Translation(texts, texts))
    assert len(rows) == len(pairs)
    expected = scored(key, hypotheses, references).value
    assert metric.decomposition.corpus_score(rows.sum(axis=0)) == pytest.approx(expected, abs=1e-9)
    # whatever stands before the sums
    twice = np.stack([rows.sum(axis=0)] * 2).reshape(1, 2, -1)
    assert metric.decomposition.corpus_score(twice) == pytest.approx(np.full((1, 2), expected), abs=1e-9)


@pytest.mark.parametrize("key", ["bleu", "chrf", "ter", "tokenized"])
@pytest.mark.parametrize(("hypotheses", "references"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_nothing_to_score(key, hypotheses, references):
    with pytest.raises(UserError, match="cannot be scored"):
        scored(key, hypotheses, references)


# the registry


def test_what_every_run_gets_and_how_it_is_called():
    """The names that the results of finished runs hold."""

    def names(scoring, tokens=True):
        return [metric.name(scoring) for metric in default_metrics(scoring, tokens)]

    assert names(Scoring()) == ["BLEU", "chrF2", "BLEU (tokenised)"]
    assert names(Scoring(), tokens=False) == ["BLEU", "chrF2"]
    assert names(Scoring(lowercase=True)) == ["BLEU", "chrF2", "BLEU (tokenised, lower case)"]
    assert names(Scoring(split_compounds=True)) == [
        *("BLEU", "chrF2", "BLEU (tokenised)", "BLEU (tokenised, compound splitting)")
    ]


def test_a_metric_is_found_by_its_key_and_by_the_name_in_results():
    lower = Scoring(lowercase=True)
    assert find_metric("chrF++").key == find_metric("chrF2++").key == "chrf++"
    assert find_metric("BLEU (tokenised, lower case)", lower).key == "tokenized"
    assert find_metric("BLEU (tokenised)", lower).key == "tokenized", "in a table of several corpora"
    with pytest.raises(UserError, match="unknown metric 'bleurt': choose from bleu, chrf, "):
        find_metric("bleurt")


def test_tokens_that_are_not_there():
    texts = Texts(["a"], ["a"], ["a"])
    with pytest.raises(UserError, match="tokenized needs Moses tokens"):
        score(METRICS["tokenized"], Translation(texts))


def test_a_tokenizer_that_is_unknown_or_not_installed(monkeypatch):
    with pytest.raises(UserError, match="sacreBLEU has no tokenizer 'klingon': choose from none, "):
        scored("bleu", ["a"], ["a"], Scoring(tokenize="klingon"))
    # what its Japanese tokenizer needs, and most people have not
    monkeypatch.setitem(sys.modules, "MeCab", None)
    monkeypatch.delitem(sys.modules, "sacrebleu.tokenizers.tokenizer_ja_mecab", raising=False)
    with pytest.raises(UserError, match=r"sacreBLEU cannot tokenize with 'ja-mecab': .*install") as refused:
        scored("bleu", ["a"], ["a"], Scoring(tokenize="ja-mecab"))
    assert "\n" not in str(refused.value)


# tokenized BLEU, against what Moses' ``multi-bleu.perl`` (commit 34452895) prints for the same lines


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
def test_tokenized_bleu(hypotheses, printed):
    assert f"{scored('tokenized', hypotheses, REFERENCES).value:.2f}" == printed


@pytest.mark.parametrize(
    ("hypotheses", "references"), [(["a b c"], ["a b c"]), (["", ""], ["a b c d e", "f"])], ids=["short", "empty"]
)
def test_tokenized_bleu_of_too_little_is_zero(hypotheses, references):
    assert scored("tokenized", hypotheses, references).value == 0


def test_tokens_stay_as_they_are():
    """sacreBLEU's own tokenizer would split these, and unescape the second."""
    assert scored("tokenized", ["z.B. 4-5 &quot; x"], ["z.B. 4-5 &quot; x"]).value == pytest.approx(100)
    assert scored("tokenized", ["z.B. 4-5 a b &amp;"], ["z.B. 4-5 a b &"]).value < 100


def test_tokenized_bleu_says_what_was_done():
    actual = scored("tokenized", ["a b c d"], ["a b c d"])
    assert (actual.name, actual.signature) == ("BLEU (tokenised)", "tokenised, multi-bleu compatible")
    actual = scored("tokenized", ["a b c d"], ["a b c d"], Scoring(lowercase=True))
    assert actual.name == "BLEU (tokenised, lower case)"
    assert actual.signature == "tokenised, multi-bleu compatible, lower case"


@settings(max_examples=50, deadline=None)
@given(LINES, st.randoms())
def test_order_of_the_lines_does_not_matter(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    value = scored("tokenized", *zip(*pairs)).value
    assert 0 <= value <= 100 + 1e-9
    assert scored("tokenized", *zip(*shuffled)).value == pytest.approx(value)


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
    """The last was tokenized with ``-a``, all others are literally what get_ende_bleu.sh makes of the line."""
    assert split_compounds([line]) == [expected]


# metrics with a model


@pytest.mark.skipif("flores200" not in BLEU.TOKENIZERS, reason="this sacreBLEU has no FLORES-200 tokenizer")
def test_spbleu_reads_the_model_where_sacrebleu_keeps_it(tmp_path, monkeypatch):
    """A small SentencePiece model under the name of the published one, which no test can download."""
    import sentencepiece
    from sacrebleu.tokenizers import tokenizer_spm

    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"spBLEU needs the SentencePiece model of FLORES-200 in .*: copy it there"):
        scored("spbleu", ["a"], ["a"])
    text = tmp_path / "text"
    text.write_text("\n".join(REFERENCES * 5), encoding="utf-8")
    models = tmp_path / "models"
    models.mkdir()
    prefix = str(models / "flores200sacrebleuspm")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=prefix, vocab_size=30, hard_vocab_limit=False, minloglevel=2
    )
    (models / "flores200sacrebleuspm.model").rename(prefix)
    actual = scored("spbleu", ["the cat sat on a mat ."], REFERENCES[:1])
    pieces = sentencepiece.SentencePieceProcessor(model_file=prefix)
    encoded = (" ".join(pieces.encode(line, out_type=str)) for line in ("the cat sat on a mat .", REFERENCES[0]))
    expected = BLEU(tokenize="none", force=True).corpus_score([next(encoded)], [[next(encoded)]]).score
    assert actual.value == pytest.approx(expected)
    assert actual.name == "spBLEU"
    assert "tok:flores200" in actual.signature


FAKE_COMET = """
import json

class Model:
    def __init__(self, path):
        self.weight = json.load(open(path))["weight"]

    def predict(self, samples, batch_size=8, gpus=1):
        assert all(set(sample) == {"src", "mt", "ref"} for sample in samples)
        scores = [self.weight * (sample["mt"] == sample["ref"]) + 0.01 * len(sample["src"]) for sample in samples]
        return {"scores": scores, "system_score": sum(scores) / len(scores)}

def load_from_checkpoint(path):
    return Model(path)
"""


def test_comet_through_its_interface(tmp_path, monkeypatch):
    """A stand-in for the library and its model of two gigabytes: what we give it, and what we make of its answer."""
    texts = Texts(["ein Hund", "x"], ["a dog", "y"], ["a dog", "z"])
    with pytest.raises(UserError, match=f"COMET needs a model: set {COMET_VARIABLE} to"):
        score(METRICS["comet"], Translation(texts))
    model = tmp_path / "tiny" / "checkpoints" / "model.ckpt"
    monkeypatch.setenv(COMET_VARIABLE, str(model))
    with pytest.raises(UserError, match="no file is there"):
        score(METRICS["comet"], Translation(texts))
    model.parent.mkdir(parents=True)
    model.write_text(json.dumps({"weight": 0.5}), encoding="utf-8")
    monkeypatch.setitem(sys.modules, "comet", None)
    with pytest.raises(UserError, match=r"COMET is not installed: pip install 'labo-fairseq\[comet\]'"):
        score(METRICS["comet"], Translation(texts))
    monkeypatch.delitem(sys.modules, "comet")
    (tmp_path / "comet.py").write_text(FAKE_COMET, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    actual = score(METRICS["comet"], Translation(texts))
    assert actual.value == pytest.approx(100 * (0.58 + 0.01) / 2)
    assert (actual.name, actual.signature) == ("COMET", "tiny/checkpoints/model.ckpt")
    monkeypatch.delitem(sys.modules, "comet")


def test_nothing_of_comet_is_imported_unless_asked_for():
    assert "comet" not in sys.modules
    assert scored("bleu", REFERENCES, REFERENCES).value == pytest.approx(100)

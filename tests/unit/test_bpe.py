"""BPE against subword-nmt, whose merges and units must come out line for line."""

import io
import random
from collections import Counter
from contextlib import suppress

import campaign
import pytest
from subword_nmt.apply_bpe import BPE
from subword_nmt.learn_bpe import learn_bpe

from labo_fairseq.data import moses
from labo_fairseq.data.apply_bpe import Segmenter
from labo_fairseq.data.learn_bpe import count_words, learn_merges
from labo_fairseq.data.preprocess import learn_joint_bpe
from labo_fairseq.errors import UserError
from labo_fairseq.files import write_lines

pytestmark = pytest.mark.once


def merges_of_subword_nmt(words, number):
    codes = io.StringIO()
    with suppress(ValueError):  # the maximum of no pairs at all
        learn_bpe([f"{word} {count}" for word, count in words.items()], codes, number, is_dict=True)
    return codes.getvalue().splitlines()[1:]


def random_words(draw):
    """Of few letters, so that pairs overlap, and one string comes of several merges."""
    letters = draw.choice(["a", "ab", "abc", "abcdefgh", "ä\U0010ffffa\\"])
    longest = draw.choice([3, 8, 20])
    words = Counter()
    for _ in range(draw.choice([1, 3, 20, 200, 600])):
        words["".join(draw.choices(letters, k=draw.randint(1, longest)))] += draw.choice([1, 1, 2, 5, 100, 3000])
    return words


@pytest.mark.parametrize("seed", range(40))
def test_merges_of_random_words(seed):
    draw = random.Random(seed)
    words, number = random_words(draw), draw.choice([5, 50, 400, 1500])
    assert [" ".join(pair) for pair in learn_merges(words, number)] == merges_of_subword_nmt(words, number)


def test_nothing_to_merge(tmp_path):
    write_lines(tmp_path / "text", ["a b c", "", "ab"])
    with pytest.raises(UserError, match="too small for BPE"):
        learn_joint_bpe([tmp_path / "text"], tmp_path / "codes", 10)
    assert not (tmp_path / "codes").exists()


def test_words_are_counted_in_several_processes(tmp_path, monkeypatch):
    monkeypatch.setattr("labo_fairseq.data.parallel_map._SMALL", 0)
    write_lines(tmp_path / "a", ["a b  b ", "", " c\u00a0d\r"])
    write_lines(tmp_path / "b", ["b"])
    for workers in (1, 2):
        assert count_words([tmp_path / "a", tmp_path / "b"], workers) == {"a": 1, "b": 3, "c\u00a0d": 1}


@pytest.fixture(scope="module")
def real_text(tmp_path_factory):
    """Tokens of both languages in a file for each, and merges of subword-nmt learnt on them."""
    folder = tmp_path_factory.mktemp("text")
    texts = [folder / "de", folder / "en"]
    for path in texts:
        write_lines(path, moses.tokenize(path.name, campaign.multi30k("train", path.name)[:2000], dash_splits=True))
    codes = folder / "codes"
    with open(codes, "w", encoding="utf-8") as file:
        learn_bpe([line for path in texts for line in path.read_text(encoding="utf-8").splitlines()], file, 1500)
    return texts, codes


def test_merges_of_real_text(real_text, tmp_path):
    texts, codes = real_text
    learn_joint_bpe(texts, tmp_path / "codes", 1500, workers=2)
    assert (tmp_path / "codes").read_bytes() == codes.read_bytes()


@pytest.mark.parametrize("language", ["de", "en"])
def test_units_of_real_text(real_text, language):
    """Lines of another set, with words and characters that the merges never saw, and odd spaces."""
    _, codes = real_text
    lines = moses.tokenize(language, campaign.multi30k("val", language)[:1000], dash_splits=True)
    lines += ["", " ", "  a  Haus ", "\rHaus\r", "Ω中x Häuserreihe", "a\u00a0b", "</w> @@ a@@ b</w>", "x" * 300]
    with open(codes, encoding="utf-8") as file:
        subword_nmt = BPE(file)
    segmenter = Segmenter(codes)
    assert [segmenter.process_line(line) for line in lines] == [subword_nmt.process_line(line) for line in lines]

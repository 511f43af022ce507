"""What is made of hypotheses: length penalties, and minimum Bayes risk with sacreBLEU's chrF."""

import random

import numpy as np
import pytest
from sacrebleu.metrics import CHRF

from labo_fairseq.analysis.search import Hypothesis, best_hypothesis, chrf_matrix, minimum_bayes_risk
from labo_fairseq.data.types import Scoring


@pytest.mark.parametrize("lowercase", [False, True])
def test_utility_is_sacrebleus_chrf(lowercase):
    generator = random.Random(3)
    lines = ["".join(generator.choices("aabBC dé", k=generator.randrange(0, 30))) for _ in range(24)]
    lines += ["", " ", "a", "A dog runs.", "a dog runs ."]
    chrf = CHRF(lowercase=lowercase)
    known = [[chrf.sentence_score(line, [reference]).score for reference in lines] for line in lines]
    np.testing.assert_allclose(chrf_matrix(lines, Scoring(lowercase=lowercase)), known, atol=1e-9)


def test_minimum_bayes_risk_takes_what_agrees_most():
    lines = ["zzz", "a dog runs", "a dog ran", "a dog runs", "the cat"]
    assert minimum_bayes_risk(lines, Scoring()) == 1
    means = np.array([[CHRF().sentence_score(one, [other]).score for other in lines] for one in lines]).mean(axis=1)
    assert means.argmax() == 1
    assert minimum_bayes_risk(["", ""], Scoring()) == 0


def test_length_penalty():
    short, long = Hypothesis("a", -2.0, 2), Hypothesis("a b c", -3.0, 4)
    assert best_hypothesis([short, long], 0.0) is short
    assert best_hypothesis([short, long], 1.0) is long

"""The mean over test sets in the report of a grid."""

import numpy as np
import pytest

from labo_fairseq.evaluation.significance import SAMPLES, paired_p
from labo_fairseq.experiments.results import Measured, pooled_tests

RUNS = [("ls", 1), ("ls", 2), ("labo", 1)]


def a_test(seed, runs=RUNS, testable=True):
    """Scores of runs on a test set, with samples about them."""
    generator = np.random.default_rng(seed)
    scores = dict(zip(runs, generator.uniform(20, 30, len(runs))))
    sampled = {run: np.append(score, score + generator.normal(size=SAMPLES)) for run, score in scores.items()}
    return Measured(scores, sampled if testable else {}, {"ls": "v:1", "labo": "v:1"})


def test_scores_are_means_of_the_runs_that_have_all_tests():
    tests = [a_test(1), a_test(2, RUNS[1:])]
    pooled = pooled_tests(tests)
    assert pooled.scores == {run: pytest.approx((tests[0].scores[run] + tests[1].scores[run]) / 2) for run in RUNS[1:]}
    assert pooled.signatures == tests[0].signatures
    for run, samples in pooled.sampled.items():
        assert samples[0] == pytest.approx(pooled.scores[run]), "the first is the score itself"
        assert len(samples) == 1 + SAMPLES
        expected = (tests[0].sampled[run][1:].mean() + tests[1].sampled[run][1:].mean()) / 2
        assert samples[1:].mean() == pytest.approx(expected)


def test_what_is_drawn_from_one_test_set_says_nothing_of_another():
    """Of four test sets with the very same draws the mean has half of the spread of one."""
    one = a_test(3)
    pooled = pooled_tests([one] * 4)
    for run in RUNS:
        assert pooled.sampled[run][1:].std() == pytest.approx(one.sampled[run][1:].std() / 2, rel=0.1)


def test_the_draws_of_two_runs_stay_paired():
    one = a_test(4)
    samples = one.sampled["ls", 1]
    better = one._replace(
        scores={**one.scores, ("labo", 1): samples[0] + 0.1}, sampled={**one.sampled, ("labo", 1): samples + 0.1}
    )
    pooled = pooled_tests([better, better])
    difference = pooled.sampled["labo", 1] - pooled.sampled["ls", 1]
    assert difference == pytest.approx(np.full(1 + SAMPLES, 0.1))
    assert paired_p(pooled.sampled["ls", 1][None], pooled.sampled["labo", 1][None]) < 0.01


def test_a_metric_that_cannot_be_tested_has_a_mean():
    pooled = pooled_tests([a_test(1, testable=False), a_test(2, testable=False)])
    assert len(pooled.scores) == 3
    assert pooled.sampled == {}

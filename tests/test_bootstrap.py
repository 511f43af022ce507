"""The bootstrap over several seeds, against its definition written out and against sacreBLEU."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from labo_fairseq.errors import UserError
from labo_fairseq.evaluation.significance import compare, paired_p


@pytest.fixture(scope="module")
def references(corpus):
    return [target for _, target in corpus["train"]][:80]


def spoil(lines, share, seed):
    """A word left out of so many lines of a hundred."""
    generator = np.random.default_rng(seed)
    spoiled = []
    for line in lines:
        words = line.split()
        if generator.random() < share:
            del words[generator.integers(len(words))]
        spoiled.append(" ".join(words))
    return spoiled


def literal_p(baseline, system, references, samples, seed):
    """Draw the sentences, score the drawn text, count."""
    generator = np.random.default_rng(seed)

    def mean(systems, drawn):
        metric = BLEU(smooth_method="none")
        return np.mean(
            [
                metric.corpus_score([lines[i] for i in drawn], [[references[i] for i in drawn]]).score
                for lines in systems
            ]
        )

    everything = range(len(references))
    observed = mean(system, everything) - mean(baseline, everything)
    found = []
    for _ in range(samples):
        drawn = generator.integers(len(references), size=len(references))
        found.append(mean(system, drawn) - mean(baseline, drawn))
    departures = np.abs(np.array(found) - np.mean(found))
    return (sum(departures >= abs(observed)) + 1) / (samples + 1)


def test_definition(references):
    baseline = [spoil(references, 0.5, seed) for seed in (1, 2)]
    system = [spoil(references, 0.4, seed) for seed in (3, 4)]
    expected = literal_p(baseline, system, references, samples=60, seed=7)
    assert paired_p(baseline, system, references, samples=60, seed=7) == pytest.approx(expected)


def test_one_seed_is_twice_what_sacrebleu_counts_in_one_direction(references):
    one, other = spoil(references, 0.5, 1), spoil(references, 0.4, 2)
    theirs = compare({"one": one, "other": other}, references, samples=2000)[1].p
    assert 0.005 < theirs < 0.4, "too clear a case to compare"
    assert paired_p([one], [other], references, samples=2000) == pytest.approx(2 * theirs, rel=0.5)


def test_equal_systems_and_clearly_better_ones(references):
    one, other = spoil(references, 0.2, 1), spoil(references, 1.0, 2)
    assert paired_p([one], [one], references, samples=50) == 1.0
    assert paired_p([other], [one], references, samples=200) == pytest.approx(1 / 201)


def test_case(references):
    upper = [line.upper() for line in references]
    assert paired_p([upper], [references], references, lowercase=True, samples=20) == 1.0
    assert paired_p([upper], [references], references, samples=20) < 0.1


@pytest.mark.parametrize("lengths", [(3, 4), (4, 3), (0, 4)])
def test_lines_that_do_not_fit(lengths):
    baseline, system = ([["x"] * length] for length in lengths)
    with pytest.raises(UserError, match="do not have 4 lines"):
        paired_p(baseline, system, ["x"] * 4)
    with pytest.raises(UserError, match="needs translations"):
        paired_p([], system, ["x"] * 4)

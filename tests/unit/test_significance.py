"""The paired bootstrap: against its definition written out, against sacreBLEU, and the same p from every command."""

import json
import math
import os
import random
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics import BLEU, CHRF, TER

from labo_fairseq.data.types import Scoring
from labo_fairseq.errors import UserError
from labo_fairseq.evaluation.metrics import METRICS, Texts, Translation, sentence_statistics
from labo_fairseq.evaluation.significance import Difference, compare, paired_p, render, resample, student_p
from labo_fairseq.files import write_lines

METRIC_OF = {
    "bleu": BLEU,
    "chrf": CHRF,
    "chrf++": partial(CHRF, word_order=2),
    "ter": partial(TER, case_sensitive=True),
    "tokenized": partial(BLEU, tokenize="none", smooth_method="none", force=True),
}


def noisy(lines, share, seed):
    """``lines`` with a share of their words left out."""
    rng = random.Random(seed)
    return [" ".join(word for word in line.split() if rng.random() >= share) for line in lines]


@pytest.fixture(scope="module")
def references():
    rng = random.Random(1)
    words = ["the", "a", "small", "big", "dog", "cat", "house", "tree", "sees", "likes", "finds", "near", "today", "."]
    return [" ".join(rng.choice(words) for _ in range(rng.randint(5, 20))) for _ in range(120)]


@pytest.fixture(scope="module")
def systems(references):
    return {
        "runs/base": noisy(references, 0.3, 2),
        "twin": noisy(references, 0.3, 3),
        "best": noisy(references, 0.1, 4),
    }


def translation(hypotheses, references):
    texts = Texts(references, hypotheses, references)
    return Translation(texts, texts)


def compare_lines(systems, references, keys=("bleu", "chrf"), **options):
    translations = {name: translation(lines, references) for name, lines in systems.items()}
    return compare([METRICS[key] for key in keys], translations, **options)


@pytest.fixture(scope="module")
def compared(systems, references):
    return compare_lines(systems, references, samples=200)


def sampled(metric, lists, references, **options):
    """Of several translations of the same text."""
    statistics = [sentence_statistics(metric, translation(lines, references)) for lines in lists]
    return resample(metric, statistics, **options)


# the definition


@pytest.mark.parametrize("key", METRIC_OF)
def test_every_sample_has_the_score_of_the_drawn_text(key, references, systems):
    """The text is drawn line by line and scored by sacreBLEU, without sums over sentences."""
    lists = [lines[:40] for lines in systems.values()]
    actual = sampled(METRICS[key], lists, references[:40], samples=25, seed=7)
    generator = np.random.default_rng(7)
    draws = [np.arange(40), *(generator.integers(40, size=40) for _ in range(25))]
    for lines, scores in zip(lists, actual):
        expected = [
            METRIC_OF[key]().corpus_score([lines[i] for i in drawn], [[references[i] for i in drawn]]).score
            for drawn in draws
        ]
        assert scores == pytest.approx(expected, abs=1e-9)


def test_definition_over_several_seeds(references):
    """Mean scores of the seeds, the share of differences that depart as far, one added to both counts."""
    baseline, system = ([noisy(references, share, seed) for seed in (1, 2)] for share in (0.3, 0.28))
    scores = sampled(METRICS["bleu"], [*baseline, *system], references, samples=80)
    differences = [sum(column[2:]) / 2 - sum(column[:2]) / 2 for column in scores.T.tolist()]
    mean = sum(differences[1:]) / 80
    departing = [value for value in differences[1:] if abs(value - mean) >= abs(differences[0])]
    assert paired_p(scores[:2], scores[2:]) == pytest.approx((len(departing) + 1) / 81)


def test_blocks_of_samples_make_no_difference(references, systems, monkeypatch):
    whole = sampled(METRICS["bleu"], list(systems.values()), references, samples=50)
    monkeypatch.setattr("labo_fairseq.evaluation.significance._BLOCK", 7 * len(references))
    assert np.array_equal(whole, sampled(METRICS["bleu"], list(systems.values()), references, samples=50))


def test_equal_systems_and_clearly_better_ones(references, systems):
    one, other = systems["best"], [""] * len(references)
    scores = sampled(METRICS["bleu"], [one, one, other], references, samples=200)
    assert paired_p(scores[0], scores[1]) == 1.0
    assert paired_p(scores[2], scores[0]) == pytest.approx(1 / 201)


# sacreBLEU


def test_scores_are_sacrebleus(compared, systems, references):
    assert [(line.metric, line.system) for line in compared] == [
        (metric, system) for metric in ("BLEU", "chrF2") for system in systems
    ]
    for line in compared:
        corpus_score = sacrebleu.corpus_bleu if line.metric == "BLEU" else sacrebleu.corpus_chrf
        assert line.score == pytest.approx(corpus_score(systems[line.system], [references]).score)
        assert abs(line.mean - line.score) < line.interval, "the bootstrap is centered on the score"
        assert f"version:{sacrebleu.__version__}" in line.signature
        assert "seed:12345" in line.signature
        assert "bs:200" in line.signature


def test_interval_is_that_of_sacrebleus_command_and_p_counts_its_other_tail_too(systems, references, tmp_path):
    """Same samples: the same interval; sacreBLEU counts the departures in the direction of the difference alone."""
    names = {"0": "runs/base", "1": "twin"}
    # a difference that has one sign in nearly every sample, and is no miracle: where sacreBLEU's count means something
    systems = {"runs/base": noisy(references, 0.30, 2), "twin": noisy(references, 0.26, 3)}
    keys = ("bleu", "chrf")
    compared = compare_lines(systems, references, keys, samples=1000)
    write_lines(tmp_path / "references", references)
    for number, name in names.items():
        write_lines(tmp_path / number, systems[name])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sacrebleu", "references", "-i", *names, "-m", "bleu", "chrf"),
            *("--paired-bs", "--paired-bs-n", "1000", "--format", "text", "--width", "4", "--quiet"),
        ],
        cwd=tmp_path,
        env={**os.environ, "SACREBLEU_SEED": "12345", "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    # its rows are systems, ours are metrics first
    rows = [line for system in systems for line in compared if line.system == system]
    printed = re.findall(r"(\S+) \((\S+) ± (\S+)\)", done.stdout)
    assert printed[-4:] == [(f"{line.score:.4f}", f"{line.mean:.4f}", f"{line.interval:.4f}") for line in rows]
    theirs = [float(p) for p in re.findall(r"p = (\S+)\)", done.stdout)]
    ours = [line.p for line in rows if line.p is not None]
    assert len(theirs) == len(ours) == 2
    for key, one, other in zip(keys, theirs, ours):
        scores = sampled(METRICS[key], list(systems.values()), references)
        differences = scores[1] - scores[0]
        sizes = np.abs(differences)
        theirs_above = (sizes[1:] - sizes[1:].mean() > sizes[0]).sum()
        assert one == pytest.approx((theirs_above + 1) / 1001, abs=1e-4), "this is what sacreBLEU counts"
        departures = differences[1:] - differences[1:].mean()
        above, below = (departures >= sizes[0]).sum(), (departures <= -sizes[0]).sum()
        assert other == pytest.approx((above + below + 1) / 1001, abs=1e-9), "and this is what we count"
        assert 0.005 < one < 0.3, "too clear a case to compare"
        assert other == pytest.approx(2 * one, rel=0.5)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 30])
def test_students_distribution_is_the_integral_of_its_density(freedom):
    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
    for t in (0.0, 0.01, 0.5, 1.0, 2.5, 8.0):
        x = np.linspace(0, t, 20001)
        density = scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
        inner = (density[1:] + density[:-1]).sum() * (x[1] - x[0])
        assert student_p(t, freedom) == student_p(-t, freedom) == pytest.approx(1 - inner, abs=1e-8)


def test_a_difference_over_seeds():
    """BLEU of five seeds; scipy.stats.ttest_1samp of them gives this p."""
    five = Difference(dict(enumerate((1.30, -1.05, 0.26, -0.56, 1.26), 1)), 0.113)
    assert five.p_over_seeds == pytest.approx(0.6356378191770673, abs=1e-12)
    assert five.text() == "Δ +0.24 ± 1.06, p 0.113, over seeds 0.636"
    assert Difference({1: -0.5}, None).text() == "Δ -0.50", "one seed says nothing of others"
    assert Difference({1: 0.5, 2: 0.5}, 0.2).text() == "Δ +0.50 ± 0.00, p 0.200", "nor do equal ones"
    assert Difference({1: -0.0041, 2: -0.0043}, 0.2).text(3) == "Δ -0.004 ± 0.000, p 0.200, over seeds 0.015"


def test_chance_is_told_from_quality(compared):
    base, twin, best = compared[:3]
    assert base.p is None
    assert twin.p > 0.05
    assert best.p < 0.05


def test_equal_arguments_give_equal_results_whatever_the_environment(compared, systems, references, monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    assert compare_lines(systems, references, samples=200) == compared
    other = compare_lines(systems, references, samples=200, seed=7)
    assert [line.score for line in other] == [line.score for line in compared]
    assert [line.mean for line in other] != [line.mean for line in compared]


def test_case(references):
    systems = {"lower": references, "upper": [line.upper() for line in references]}
    lower, upper = compare_lines(systems, references, scoring=Scoring(lowercase=True), samples=10)[:2]
    assert lower.score == upper.score == pytest.approx(100)
    assert upper.p == 1.0
    assert "case:lc" in lower.signature
    assert compare_lines(systems, references, samples=10)[1].score < 50


def test_table(compared):
    lines = render(compared).splitlines()
    assert lines[0].split() == ["BLEU", "score", "mean", "±", "95", "%", "p"]
    assert lines[1].split()[:2] == ["runs/base", f"{compared[0].score:.2f}"]
    assert lines[3].split()[-1] == f"{compared[2].p:.4f}"
    assert lines[4] == f"({compared[0].signature})"
    assert lines[6].startswith("chrF2")
    assert len({line.index("±") for line in lines if "±" in line and "score" not in line}) == 1, "not aligned"


def test_json(compared):
    first, second = json.loads(json.dumps([line.to_json() for line in compared]))[:2]
    assert first["system"] == "runs/base"
    assert first["p"] is None
    assert second["p"] == compared[1].p


@pytest.mark.parametrize(
    ("systems", "references", "options", "message"),
    [
        ({"a": ["x"]}, ["x"], {}, "at least two"),
        ({"a": [], "b": []}, [], {}, "empty"),
        ({"a": ["x", "y"], "b": ["x"]}, ["x", "y"], {}, "^b has 1 lines, but the references have 2$"),
        ({"a": ["x"], "b": ["x"]}, ["x"], {"samples": 0}, "samples must be an integer ≥ 1, got 0"),
        ({"a": ["x"], "b": ["x"]}, ["x"], {"seed": 0}, "seed must be an integer ≥ 1, got 0"),
    ],
)
def test_mistakes(systems, references, options, message):
    with pytest.raises(UserError, match=message):
        compare_lines(systems, references, **options)


@pytest.mark.parametrize("lengths", [(3, 4), (4, 3), ()])
def test_lines_that_do_not_fit(lengths):
    with pytest.raises(UserError, match="needs translations of the same lines, got"):
        resample(METRICS["bleu"], [np.ones((length, 10)) for length in lengths])

"""Paired bootstrap of systems on the same references."""

import json
import os
import random
import re
import subprocess
import sys

import pytest
import sacrebleu

from labo_fairseq.errors import UserError
from labo_fairseq.evaluation.significance import compare, render
from labo_fairseq.files import write_lines


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


@pytest.fixture(scope="module")
def compared(systems, references):
    return compare(systems, references, samples=200)


def test_scores_are_sacrebleus(compared, systems, references):
    assert [(each.metric, each.system) for each in compared] == [
        (metric, system) for metric in ("BLEU", "chrF2") for system in systems
    ]
    for each in compared:
        corpus_score = sacrebleu.corpus_bleu if each.metric == "BLEU" else sacrebleu.corpus_chrf
        assert each.score == pytest.approx(corpus_score(systems[each.system], [references]).score)
        assert abs(each.mean - each.score) < each.interval, "the bootstrap is centred on the score"
        assert f"version:{sacrebleu.__version__}" in each.signature
        assert "seed:12345" in each.signature
        assert "bs:200" in each.signature


def test_chance_is_told_from_quality(compared):
    base, twin, best = compared[:3]
    assert base.p is None
    assert twin.p > 0.05
    assert best.p < 0.05


def test_equals_sacrebleus_command(compared, systems, references, tmp_path):
    """Same samples, so the same interval and p, as ``sacrebleu --paired-bs``."""
    write_lines(tmp_path / "references", references)
    for number, lines in enumerate(systems.values()):
        write_lines(tmp_path / str(number), lines)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sacrebleu", "references", "-i", "0", "1", "2", "-m", "bleu", "chrf"),
            *("--paired-bs", "--paired-bs-n", "200", "--format", "text", "--width", "4", "--quiet"),
        ],
        cwd=tmp_path,
        env={**os.environ, "SACREBLEU_SEED": "12345", "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    # its rows are systems, ours are metrics first
    rows = [each for system in systems for each in compared if each.system == system]
    printed = re.findall(r"(\S+) \((\S+) ± (\S+)\)", done.stdout)
    assert printed[-6:] == [(f"{each.score:.4f}", f"{each.mean:.4f}", f"{each.interval:.4f}") for each in rows]
    assert re.findall(r"p = (\S+)\)", done.stdout) == [f"{each.p:.4f}" for each in rows if each.p is not None]


def test_equal_arguments_give_equal_results(compared, systems, references, monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    assert compare(systems, references, samples=200) == compared
    assert os.environ["SACREBLEU_SEED"] == "7"
    other = compare(systems, references, samples=200, seed=7)
    assert [each.score for each in other] == [each.score for each in compared]
    assert [each.mean for each in other] != [each.mean for each in compared]


def test_environment_is_left_alone(systems, references, monkeypatch):
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    compare(systems, references, samples=1)
    assert "SACREBLEU_SEED" not in os.environ


def test_case(references):
    systems = {"lower": references, "upper": [line.upper() for line in references]}
    lower, upper = compare(systems, references, lowercase=True, samples=10)[:2]
    assert lower.score == upper.score == pytest.approx(100)
    assert "case:lc" in lower.signature
    assert compare(systems, references, samples=10)[1].score < 50


def test_table(compared):
    lines = render(compared).splitlines()
    assert lines[0].split() == ["BLEU", "score", "mean", "±", "95", "%", "p"]
    assert lines[1].split()[:2] == ["runs/base", f"{compared[0].score:.2f}"]
    assert lines[3].split()[-1] == f"{compared[2].p:.4f}"
    assert lines[4] == f"({compared[0].signature})"
    assert lines[6].startswith("chrF2")
    assert len({line.index("±") for line in lines if "±" in line and "score" not in line}) == 1, "not aligned"


def test_json(compared):
    first, second = json.loads(json.dumps([each.to_json() for each in compared]))[:2]
    assert first["system"] == "runs/base"
    assert first["p"] is None
    assert second["p"] == compared[1].p


@pytest.mark.parametrize(
    ("systems", "references", "options", "message"),
    [
        ({"a": ["x"]}, ["x"], {}, "at least two"),
        ({"a": [], "b": []}, [], {}, "empty"),
        ({"a": ["x", "y"], "b": ["x"]}, ["x", "y"], {}, "^b has 1 lines, but the references have 2$"),
        ({"a": ["x"], "b": ["x"]}, ["x"], {"samples": 0}, "samples is 0"),
        ({"a": ["x"], "b": ["x"]}, ["x"], {"seed": 0}, "seed is 0"),
    ],
)
def test_mistakes(systems, references, options, message):
    with pytest.raises(UserError, match=message):
        compare(systems, references, **options)

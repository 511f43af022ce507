"""The decoding study on real trainings: its searches are fairseq's, the validation set chooses, it resumes."""

import re

import pytest
from fairseq_runs import command, finished, read_csv, run

from labo_fairseq.analysis.search import Search, SearchingModel, best_hypothesis
from labo_fairseq.analysis.teacher_forcing import TeacherForcedModel
from labo_fairseq.evaluation.generate import Decoding, decoding_options
from labo_fairseq.evaluation.runs import load_run
from labo_fairseq.files import read_lines

PAIR = ("de", "en")
TEST = "test_2016_flickr"
GRID = (
    *("--beams", "1", "3", "--lenpens", "0", "1", "--temperatures", "0.8", "1", "--samples", "4"),
    *("--sentences", "12", "--test-sentences", "9", "--tests", TEST),
)


@pytest.fixture(scope="module")
def labo(multi30k):
    return load_run(finished(multi30k[0]))


@pytest.fixture(scope="module")
def model(labo):
    return SearchingModel(labo, TeacherForcedModel(labo, PAIR), PAIR)


def test_translations_are_those_of_the_run(labo, model):
    """Beam 5, length penalty 1: what fairseq-generate made of the test set when the run was trained."""
    n_best = model.hypotheses(list(read_lines(labo.data.subwords(TEST, "de"))), Search(5))
    assert {len(hypotheses) for hypotheses in n_best} == {5}
    lines = model.texts([best_hypothesis(hypotheses, 1.0).subwords for hypotheses in n_best])
    assert lines == list(read_lines(labo.hypotheses(TEST, PAIR)))


@pytest.mark.parametrize("posterior", [False, True])
def test_every_option_is_that_of_fairseq_generate(labo, model, posterior):
    decoding = Decoding(3, 0.3, posterior)
    options = (*decoding_options(labo.data, labo.checkpoint, *PAIR, decoding), "--gen-subset", "valid", "--cpu")
    more = ("--temperature", "0.7", "--nbest", "3", "--required-batch-size-multiple", "1")
    done = run(command("fairseq-generate"), *options, *more)
    assert done.returncode == 0, done.stdout[-3000:]
    known = {}
    for number, score, subwords in re.findall(r"^H-(\d+)\t(\S+)\t(.*)$", done.stdout, re.MULTILINE):
        known.setdefault(int(number), []).append((subwords, float(score)))
    n_best = model.hypotheses(list(read_lines(labo.data.subwords("valid", "de"))), Search(3, 0.7, posterior))
    assert len(known) == len(n_best) == 50
    for number, hypotheses in enumerate(n_best):
        # in base 2
        scores = [one.log_probability / one.tokens**0.3 / 0.6931472 for one in hypotheses]
        assert sorted(scores) == pytest.approx(sorted(score for _, score in known[number]), abs=2e-4)
        assert best_hypothesis(hypotheses, 0.3).subwords == known[number][0][0]


def test_samples_are_the_same_again(labo, model):
    sources = list(read_lines(labo.data.subwords("valid", "de")))[:6]
    search = Search(4, sampling=True)
    first = model.hypotheses(sources, search)
    assert model.hypotheses(sources, search) == first
    assert model.hypotheses(sources, Search(4, sampling=True, seed=2)) != first
    assert any(len({one.subwords for one in samples}) > 1 for samples in first)


def test_the_validation_set_chooses_and_the_command_resumes(multi30k, tmp_path):
    pair = [finished(multi30k[0], method) for method in ("ls", "labo")]
    arguments = (command("labo-fairseq"), "analyse", "decoding", *pair, *GRID, "--out", tmp_path)
    done = run(*arguments)
    assert done.returncode == 0, done.stdout[-3000:]
    rows = read_csv(tmp_path / "decoding.csv")
    for system in ("ls-seed1-smoke", "labo-seed1-smoke"):
        valid = [row for row in rows if row["system"] == system and row["test"] == "valid"]
        # posterior × (beams × length penalties + samples) × temperatures, and the default search
        assert len(valid) == 2 * (2 * 2 + 1) * 2 + 1
        assert {row["sentences"] for row in valid} == {"12"}
        asked = [row for row in valid if row["size"] != "5"]
        tested = [row for row in rows if row["system"] == system and row["test"] == TEST]
        keys = ("probabilities", "search", "size", "temperature", "length_penalty")
        assert [tested[0][key] for key in keys] == ["model", "beam", "5", "1.0", "1.0"]
        assert len(tested) == 5
        for row in tested[1:]:
            rivals = [one for one in asked if all(one[key] == row[key] for key in ("probabilities", "search"))]
            (chosen,) = [one for one in rivals if all(one[key] == row[key] for key in keys)]
            assert float(chosen["bleu"]) == max(float(one["bleu"]) for one in rivals)
    assert (tmp_path / "decoding.png").exists()
    # an interrupted study makes only what is missing
    cells = {path: path.stat().st_mtime_ns for path in tmp_path.glob("searches/*/*.json")}
    lost = next(path for path in cells if path.name == "valid-12-beam3-T0.8-lenpen0-posterior.json")
    lost.unlink()
    again = run(*arguments)
    assert again.returncode == 0, again.stdout[-3000:]
    assert re.findall(r"seed1-smoke, (\w+), ([^:]*): +0%", again.stdout) == [("valid", "beam 3, T 0.8, posterior")]
    assert read_csv(tmp_path / "decoding.csv") == rows
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("searches/*/*.json") if path != lost}
    assert {**kept, lost: cells[lost]} == cells


def test_a_mistake_is_one_line(multi30k, tmp_path):
    folder = finished(multi30k[0])
    arguments = (command("labo-fairseq"), "analyse", "decoding", folder, "--out", tmp_path / "out")
    done = run(*arguments, "--tests", "test_1999")
    assert done.returncode != 0
    assert "no test set 'test_1999': choose from test_2016_flickr, " in done.stdout
    done = run(*arguments, "--temperatures", "0")
    assert done.returncode != 0
    assert "argument --temperatures: must be > 0, got 0" in done.stdout

"""The tables of a grid of images, made of results that no training made."""

import json
import re

import numpy as np
import pytest

from labo_fairseq.errors import UserError
from labo_fairseq.evaluation.metrics import Score
from labo_fairseq.evaluation.significance import Difference, render
from labo_fairseq.experiments.grid import load_grid
from labo_fairseq.experiments.image_report import _curves_figure, write_image_report
from labo_fairseq.experiments.image_result import ImageCost, ImageEvaluation, ImageResult, ImageRun
from labo_fairseq.experiments.image_scores import ACCURACY, compare_image_runs, tuned
from labo_fairseq.experiments.kinds import IMAGES, GridRun
from labo_fairseq.experiments.results import Cell, Column, _show, write_report
from labo_fairseq.files import write_json

IMAGES_OF_A_SET = 40


def finished_run(folder, method, valid_accuracy=None, accuracy=50.0):
    """A run with that share of right test images; without validation images where ``valid_accuracy`` is None."""
    labels = np.zeros(IMAGES_OF_A_SET, dtype=np.int64)
    logits = np.zeros((IMAGES_OF_A_SET, 2), dtype=np.float32)
    right = int(accuracy * IMAGES_OF_A_SET / 100)
    logits[:right, 0], logits[right:, 1] = 1, 1
    folder.mkdir(parents=True)
    np.savez(folder / "predictions.npz", test_logits=logits, test_labels=labels)
    config = {"criterion": {"name": method}, "dataset": "x", "data": {}, "smoke": False}
    run = ImageRun(folder, config, {})
    validation = [] if valid_accuracy is None else [Score(ACCURACY, valid_accuracy, "")]
    tests = {"test": [Score(ACCURACY, accuracy, "n:40"), Score("NLL", 0.5, "unit:nats|n:40")]}
    evaluation = ImageEvaluation("checkpoint_best.pt", tests, 1, None, validation)
    cost = ImageCost(1.0, 10, 1.0, 100, "CPU", {})
    write_json(run.result, ImageResult(run.settings(), {}, cost, evaluation, ["a", "b"]).to_json())
    return run


@pytest.fixture
def make(tmp_path):
    return lambda name, *values: finished_run(tmp_path / name, *values)


def test_without_validation_images_nothing_is_chosen(make):
    runs = {"labo": make("labo", "labo"), "labo-tau2.0": make("labo-tau2.0", "labo")}
    assert tuned("x", {variant: {1: run} for variant, run in runs.items()}, "labo") is None
    done = [GridRun("x resnet18", variant, 1, run) for variant, run in runs.items()]
    assert [table.caption.split(";")[0] for table in IMAGES.more_tables(done, "labo")] == ["x resnet18, all scores"]


def test_a_baseline_that_is_not_finished_is_no_column(make):
    runs = {"labo": {1: make("labo", "labo", 40.0)}, "labo-tau2.0": {1: make("labo-tau2.0", "labo", 60.0, 75.0)}}
    table = tuned("x", runs, "ls")
    assert table.header == ("method", "chosen", "seeds", ACCURACY)
    assert list(table.rows) == [("labo", "labo-tau2.0", "1", "75.00")]
    runs["ls"] = {1: make("ls", "ls", 50.0)}
    table = tuned("x", runs, "ls")
    assert table.header[-1] == "Δ to ls"
    assert [bool(row[-1]) for row in table.rows] == [True, False]


@pytest.mark.parametrize("images", ["validation", "training"])
def test_a_curve_says_which_images_it_is_of(tmp_path, images):
    records = [{"epoch": epoch, "updates": 9 * epoch, "train_accuracy": 50.0, "train_loss": 1.0} for epoch in (1, 2)]
    for record in records if images == "validation" else ():
        record.update(valid_accuracy=40.0, valid_nll=1.5)
    run = ImageRun(tmp_path, {}, {})
    run.log.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    value = 40.0 if images == "validation" else 50.0
    assert IMAGES.validation_curve(run.log) == ([(9, value), (18, value)], f"{images} accuracy (%)")
    progress = IMAGES.progress(run.log, {"training": {"epochs": 4}})
    assert progress == f"training  50%, {images} accuracy {value:.2f}"
    assert f"on {images} images" in _curves_figure({"ls": run}).alt


def test_nats_have_three_decimals_and_percent_two(make):
    ls, labo = make("ls", "ls", 40.0, 50.0), make("labo", "labo", 40.0, 55.0)
    shown = [IMAGES.shown(name) for name in ("nll", "ACCURACY", "nll (posterior)", "ece")]
    assert [one.digits for one in shown] == [3, 2, 3, 2]
    lines = render(compare_image_runs([ls, labo], samples=10)).splitlines()
    assert re.search(r"labo +55\.00 +\d\d\.\d\d ± \d+\.\d\d  \d\.\d{4}$", lines[2])
    assert re.search(r"labo +0\.763 +0\.\d{3} ± 0\.\d{3}  \d\.\d{4}$", lines[7])
    cell = Cell("labo", Column("x", "resnet18", "test"), {1: 0.7632}, Difference({1: -0.0041}, 0.5), "")
    assert _show(cell, 0.1, 3) == "0.763 (1), Δ -0.004, p 0.500"
    assert _show(cell, 0.7632, 3).startswith("**0.763** (1)")


def test_a_report_on_several_networks_names_them_all_and_writes_nowhere_else(tmp_path, make):
    runs = []
    for network in ("resnet18", "mobilenetv2"):
        run = make(f"{network}/ls", "ls", 40.0)
        run.config["network"] = {"name": network}
        record = {"epoch": 1, "updates": 9, "train_accuracy": 50.0, "train_loss": 1.0}
        run.log.write_text(json.dumps(record) + "\n", encoding="utf-8")
        pixels, logits = np.zeros((2, 1, 8, 8), dtype=np.uint8), np.zeros((2, 2), dtype=np.float32)
        np.savez(run.folder / "hard_images.npz", pixels=pixels, logits=logits, labels=np.zeros(2, dtype=np.int64))
        runs.append(run)
    before = set(tmp_path.rglob("*"))
    path, _ = write_image_report(runs, tmp_path / "report")
    assert "x, resnet18, mobilenetv2" in path.read_text(encoding="utf-8")
    made = {file.relative_to(tmp_path / "report").as_posix() for file in set(tmp_path.rglob("*")) - before}
    figures = {"reliability.png", "curves.png", "hard-images-resnet18-ls.png", "hard-images-mobilenetv2-ls.png"}
    assert made == {".", "report.html", "report.json", *figures}


def test_a_score_that_no_run_has_is_told_by_the_kind_of_run(tmp_path, make, monkeypatch):
    run = make("runs/digits/resnet18/ls-seed1", "ls", 40.0)
    (tmp_path / "mine.yaml").write_text("grid: [{dataset: digits, networks: [resnet18], methods: [ls], seeds: [1]}]")
    grid = load_grid(str(tmp_path / "mine.yaml"))
    monkeypatch.setattr("labo_fairseq.experiments.results.result_of", lambda job, root: run.read_result())
    with pytest.raises(
        UserError, match=r"^no finished run of mine has the score 'ECE \(posterior\)': not every method"
    ):
        write_report(grid, tmp_path / "runs", tmp_path / "out", "ece (posterior)")
    assert not (tmp_path / "out").exists()

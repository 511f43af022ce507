"""fairseq's JSON log, and what is drawn of it."""

import json

import pytest

from labo_fairseq.experiments.kinds import TRANSLATION
from labo_fairseq.files import write_lines
from labo_fairseq.losses.blockwise import Quantity
from labo_fairseq.reporting.training_log import parse_record, plot_training, read_curves


def record(kind, **values):
    statistics = json.dumps({name: str(value) for name, value in values.items()})
    return f"2026-01-01 00:00:00 | INFO | {kind} | {statistics}"


LOG = [
    "2026-01-01 00:00:00 | INFO | fairseq_cli.train | max tokens = 400",
    record("train_inner", epoch=1, num_updates=1, loss=9.5, nll_loss=9.1),
    record("train_inner", epoch=1, num_updates=2, loss=8.0, nll_loss=8.5, alpha=0.6, p_star=0.2),
    record("valid", epoch=1, valid_num_updates=2, valid_nll_loss=8.25),
    record("train", epoch=1, train_num_updates=2, train_loss=8.0),
    record("train_inner", epoch=1, num_updates=3, loss=7.5, nll_loss=7.1)[:-9],
    record("train_inner", epoch=1, num_updates=2, loss=7.75, nll_loss=8.5),
]


def test_records():
    assert parse_record(LOG[0]) is None
    assert parse_record(LOG[1]) == ("train_inner", {"epoch": 1, "num_updates": 1, "loss": 9.5, "nll_loss": 9.1})
    assert parse_record(LOG[5]) is None, "cut short by a kill"


def test_curves_take_the_last_word_after_a_resume(tmp_path):
    write_lines(tmp_path / "log", LOG)
    curves = read_curves(tmp_path / "log")
    assert curves["train"]["loss"] == {1: 9.5, 2: 7.75}
    assert curves["train"]["alpha"] == {2: 0.6}
    assert curves["valid"]["nll_loss"] == {2: 8.25}
    assert TRANSLATION.validation_curve(tmp_path / "log") == ([(2, 8.25)], "validation NLL (bits)")


@pytest.mark.parametrize("lines", [LOG, []])
def test_picture(tmp_path, lines):
    write_lines(tmp_path / "log", lines)
    quantities = {"alpha": Quantity("smoothing mass α"), "entropy": Quantity("entropy of p", "bits")}
    assert plot_training(tmp_path / "log", tmp_path / "curves.png", "title", warmup_ends=1, quantities=quantities)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_no_picture_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    write_lines(tmp_path / "log", LOG)
    assert not plot_training(tmp_path / "log", tmp_path / "curves.png", "title")
    assert not (tmp_path / "curves.png").exists()

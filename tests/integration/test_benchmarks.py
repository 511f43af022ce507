"""The benchmark programs, on sizes that measure nothing: that they run, and that their tables hold what they say."""

import json
import sys

import pytest
from checkouts import ROOT
from fairseq_runs import run

BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.once


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loss(tmp_path, dtype):
    options = ("--shapes", "256x4096", "--dtypes", dtype, "--rounds", "1", "--hidden", "8", "--device", "cpu")
    options += ("--comparisons", "logits")
    done = run(sys.executable, BENCHMARKS / "loss.py", *options, "--out", tmp_path / "loss")
    assert done.returncode == 0, done.stdout
    rows = {row["method"]: row for row in json.loads((tmp_path / "loss.json").read_text(encoding="utf-8"))["rows"]}
    assert (rows["fairseq LS"]["time"], rows["fairseq LS"]["memory"]) == (1, 1)
    assert {"torch LS", "Eq. 14 literally", "LABO", "copy", "exponentials"} < set(rows)
    assert rows["copy"]["bytes"] == 2 * 256 * 4096 * {"float32": 4, "bfloat16": 2}[dtype]
    parts = rows["copy"]["floor"], rows["exponentials"]["floor"]
    assert sum(1 / part for part in parts) == pytest.approx(1), "of one round: the parts are the whole"
    for name, row in rows.items():
        assert row["time"] > 0
        assert row["floor"] == pytest.approx(rows["copy"]["floor"] * rows["copy"]["time"] / row["time"])
        assert f"{row['time']:.2f}" in next(line for line in done.stdout.splitlines() if line.startswith(f"{name:<20}"))
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def text(bible, tmp_path_factory):
    """Options of those that train: the Bible, prepared by the first of them."""
    return ("--vocabulary", "300", "--data", tmp_path_factory.mktemp("benchmarks") / "data")


def test_training(text, tmp_path):
    options = ("--updates", "6", "--rounds", "1", "--methods", "kd", *text)
    settings = ("model=transformer_tiny", "dataset.max_tokens=400")
    done = run(sys.executable, BENCHMARKS / "training.py", *options, *settings, "--out", tmp_path / "training.json")
    assert done.returncode == 0, done.stdout[-3000:]
    written = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in written["rows"]] == ["ls", "kd"]
    assert (written["rows"][0]["speed"], written["rows"][0]["memory"]) == (1, 1)
    base, ours = (row["rounds"][0] for row in written["rows"])
    assert written["rows"][1]["speed"] == pytest.approx(ours["speed"] / base["speed"])
    assert base["memory"] > 100, "MiB of a process that has loaded torch"
    assert written["configuration"]["dataset"]["max_tokens"] == 400


def test_images(tmp_path):
    options = ("--networks", "resnet18:8x1x16", "mobilenetv2:0.1x3x8", "--batch", "4", "--rounds", "1")
    done = run(sys.executable, BENCHMARKS / "images.py", *options, "--out", tmp_path / "images.json")
    assert done.returncode == 0, done.stdout[-3000:]
    rows = json.loads((tmp_path / "images.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["network"], row["width"]) for row in rows] == [("resnet18", 8), ("mobilenetv2", 0.1)]
    for row in rows:
        assert row["cpu"] > 0
        assert f"{row['cpu']:.2f}" in next(line for line in done.stdout.splitlines() if line.startswith(row["network"]))


def test_preparation(bible, tmp_path):
    options = ("--pairs", "120", "--merges", "80", "--ours", "--out", tmp_path / "preparation.json")
    done = run(sys.executable, BENCHMARKS / "preparation.py", *options)
    assert done.returncode == 0, done.stdout[-3000:]
    written = json.loads((tmp_path / "preparation.json").read_text(encoding="utf-8"))
    rows = {row["stage"]: row for row in written["rows"]}
    assert list(rows) == ["read", "normalize", "tokenize", "learn", "apply", "binarize", "whole"]
    for row in rows.values():
        assert row["ours"]["lines"] == pytest.approx(120 / row["ours"]["seconds"])
        assert row["ours"]["memory"] > 0
        assert (row["published"], row["same"]) == (None, None)
    assert written["wmt14_hours"] == {"ours": pytest.approx(4_508_785 / rows["whole"]["ours"]["lines"] / 3600)}
    assert (tmp_path / "preparation.md").read_text(encoding="utf-8").count("\n") == 2 + len(rows)


def test_update(text, tmp_path):
    options = ("--updates", "3", "--warm", "1", *text)
    settings = ("model=transformer_tiny", "dataset.max_tokens=400")
    program = (sys.executable, BENCHMARKS / "update.py", *options, "--methods", "ls", "labo, fused", "--out")
    done = run(*program, tmp_path / "update.json", *settings)
    assert done.returncode == 0, done.stdout[-3000:]
    rows = json.loads((tmp_path / "update.json").read_text(encoding="utf-8"))["rows"]
    assert [row["method"] for row in rows] == ["ls", "labo, fused"]
    for row in rows:
        assert sum(row["shares"].values()) == pytest.approx(1)
        for name in ("loss", "optimizer", "other products", "element-wise", "Python"):
            assert row["shares"][name] > 0, name
    (ls, fused) = (row["shares"] for row in rows)
    assert ls["output layer"] > 0
    assert fused["output layer"] == 0, "its products belong to the loss"
    shown = {line[:16].strip(): line.split()[-3:] for line in done.stdout.splitlines()}
    for name, share in ls.items():
        assert f"{100 * share:.1f}" in shown[name]
    assert (tmp_path / "update.png").read_bytes().startswith(b"\x89PNG")

"""The benchmark programs, on sizes that measure nothing: that they run, and that their tables hold what they say."""

import json
import sys

import pytest
from checkouts import ROOT
from fairseq_runs import run

BENCHMARKS = ROOT / "benchmarks"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loss(tmp_path, dtype):
    options = ("--shapes", "256x4096", "--dtypes", dtype, "--rounds", "1", "--hidden", "8", "--device", "cpu")
    options += ("--comparisons", "logits")
    done = run(sys.executable, BENCHMARKS / "loss.py", *options, "--out", tmp_path / "loss")
    assert done.returncode == 0, done.stdout
    rows = {row["method"]: row for row in json.loads((tmp_path / "loss.json").read_text(encoding="utf-8"))["rows"]}
    assert (rows["fairseq LS"]["time"], rows["fairseq LS"]["memory"]) == (1, 1)
    assert {"torch LS", "Eq. 14 literally", "LABO"} < set(rows)
    for name, row in rows.items():
        assert row["time"] > 0
        assert row["floor_bytes"] == 2 * 256 * 4096 * {"float32": 4, "bfloat16": 2}[dtype]
        assert f"{row['time']:.2f}" in next(line for line in done.stdout.splitlines() if line.startswith(f"{name:<20}"))
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_training(bible, tmp_path):
    options = ("--updates", "6", "--rounds", "1", "--vocabulary", "300", "--methods", "labo", "--data", tmp_path / "d")
    settings = ("model=transformer_tiny", "dataset.max_tokens=400")
    done = run(sys.executable, BENCHMARKS / "training.py", *options, *settings, "--out", tmp_path / "training.json")
    assert done.returncode == 0, done.stdout[-3000:]
    written = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in written["rows"]] == ["ls", "labo"]
    assert (written["rows"][0]["speed"], written["rows"][0]["memory"]) == (1, 1)
    ours, base = (row["rounds"][0] for row in reversed(written["rows"]))
    assert written["rows"][1]["speed"] == pytest.approx(ours["speed"] / base["speed"])
    assert base["memory"] > 100, "MiB of a process that has loaded torch"
    assert written["configuration"]["dataset"]["max_tokens"] == 400


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

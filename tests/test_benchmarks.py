"""The benchmark programs, on sizes that measure nothing: that they run, and that their tables hold what they say."""

import json
import sys
from pathlib import Path

import pytest
import torch
from fairseq_runs import run

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from traces import compared, contents  # noqa: E402

#: half a minute of starting processes
ONCE = pytest.mark.skipif(sys.version_info < (3, 11), reason="the tests of the newest Python run it")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loss(tmp_path, dtype):
    options = ("--shapes", "256x4096", "--dtypes", dtype, "--rounds", "1", "--hidden", "8", "--device", "cpu")
    done = run(sys.executable, BENCHMARKS / "loss.py", *options, "--out", tmp_path / "loss", "--comparisons", "logits")
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
    found = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in found["rows"]] == ["ls", "labo"]
    assert (found["rows"][0]["speed"], found["rows"][0]["memory"]) == (1, 1)
    ours, base = (row["rounds"][0] for row in reversed(found["rows"]))
    assert found["rows"][1]["speed"] == pytest.approx(ours["speed"] / base["speed"])
    assert base["memory"] > 100, "MiB of a process that has loaded torch"
    assert found["configuration"]["dataset"]["max_tokens"] == 400


@ONCE
def test_faults(bible, tmp_path):
    options = ("--steps", "preparation", "--kills", "1", "--seed", "3", "--out", tmp_path / "faults.json")
    done = run(sys.executable, BENCHMARKS / "faults.py", *options)
    assert done.returncode == 0, done.stdout[-3000:]
    (row,) = json.loads((tmp_path / "faults.json").read_text(encoding="utf-8"))["rows"]
    assert row["step"] == "preparation"
    assert row["files"] > 20
    assert [each["faults"] for each in row["trials"]] == [[]] * len(row["trials"])
    kills = [kill for each in row["trials"] for kill in each["kills"]]
    assert kills
    assert all(0 < kill["seconds"] < row["seconds"] for kill in kills)
    assert f"{len(kills)}" in done.stdout.splitlines()[-1]


def test_faults_are_found(tmp_path):
    """What the program compares: every file, its content, the bits of the parameters."""
    (tmp_path / "text").write_text("one", encoding="utf-8")
    torch.save({"model": {"w": torch.ones(2)}, "optimizer_history": [{"num_updates": 1}]}, tmp_path / "c.pt")
    expected = contents(tmp_path)
    assert compared(contents(tmp_path), expected) == []
    (tmp_path / "text").write_text("two", encoding="utf-8")
    weights = torch.tensor([1, 1 + 2**-23])
    torch.save({"model": {"w": weights}, "optimizer_history": [{"num_updates": 1}]}, tmp_path / "c.pt")
    (tmp_path / ".left.part").touch()
    assert compared(contents(tmp_path), expected) == [".left.part is new", "c.pt is another", "text is another"]
    (tmp_path / "text").unlink()
    assert "text is missing" in compared(contents(tmp_path), expected)


@ONCE
def test_endurance(bible, tmp_path):
    options = ("--updates", "40", "--every", "20", "--out", tmp_path / "endurance.json")
    done = run(sys.executable, BENCHMARKS / "endurance.py", *options)
    assert done.returncode == 0, done.stdout[-3000:]
    found = json.loads((tmp_path / "endurance.json").read_text(encoding="utf-8"))
    assert (found["updates"], found["kills"], found["differences"]) == (40, 1, [])
    assert found["values"] > 40 * 10

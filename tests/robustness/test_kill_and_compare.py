"""The programs that kill and compare, with few kills: that they run, and that they see what they look for."""

import json
import sys
from pathlib import Path

import pytest
import torch
from fairseq_runs import run
from traces import compared, contents

pytestmark = pytest.mark.once

HERE = Path(__file__).resolve().parent

#: half a minute of starting processes
ONCE = pytest.mark.skipif(sys.version_info < (3, 11), reason="the tests of the newest Python run it")


@ONCE
def test_faults(bible, tmp_path):
    options = ("--steps", "preparation", "--kills", "1", "--seed", "3", "--out", tmp_path / "faults.json")
    done = run(sys.executable, HERE / "faults.py", *options)
    assert done.returncode == 0, done.stdout[-3000:]
    (row,) = json.loads((tmp_path / "faults.json").read_text(encoding="utf-8"))["rows"]
    assert row["step"] == "preparation"
    assert row["files"] > 20
    assert [trial["faults"] for trial in row["trials"]] == [[]] * len(row["trials"])
    kills = [kill for trial in row["trials"] for kill in trial["kills"]]
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
    done = run(sys.executable, HERE / "endurance.py", *options)
    assert done.returncode == 0, done.stdout[-3000:]
    summary = json.loads((tmp_path / "endurance.json").read_text(encoding="utf-8"))
    assert (summary["updates"], summary["kills"], summary["differences"]) == (40, 1, [])
    assert summary["values"] > 40 * 10

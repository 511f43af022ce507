"""The analysis of when a method pays, on real runs; one of label smoothing stands for cross-entropy's."""

import csv
import json
import re
import shutil

import pytest
from fairseq_runs import command, run

LABO = command("labo-fairseq")


@pytest.fixture(scope="module")
def runs(multi30k, tmp_path_factory):
    """Folders of runs: label smoothing, LABO, and a copy of the first that says it had no smoothing mass."""
    folders = [multi30k[0] / "multi30k" / "de-en" / f"{method}-seed1-smoke" for method in ("ls", "labo")]
    copy = tmp_path_factory.mktemp("runs") / "ce-seed1-smoke"
    shutil.copytree(folders[0], copy)
    result = json.loads((copy / "result.json").read_text(encoding="utf-8"))
    result["data"] = str((folders[0] / result["data"]).resolve())
    result["settings"]["config"]["criterion"]["label_smoothing"] = 0
    (copy / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return [*folders, copy]


def test_gain_and_overfitting(runs, tmp_path):
    done = run(LABO, "analyse", "overfitting", *runs, "--out", tmp_path)
    assert done.returncode == 0, done.stdout
    with open(tmp_path / "overfitting.csv", encoding="utf-8", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["labo-smoke", "ce-smoke"]
    results = [json.loads((folder / "result.json").read_text(encoding="utf-8")) for folder in runs]
    bleu = []
    for result in results:
        tests = result["evaluation"]["tests"].values()
        scores = [score["value"] for scores in tests for score in scores if score["name"] == "BLEU"]
        bleu.append(sum(scores) / len(scores))
    log = (runs[0] / "train.log").read_text(encoding="utf-8")
    valid, train = (
        [float(v) for v in re.findall(rf'"{kind}_nll_loss": "([\d.]+)"', log)] for kind in ("valid", "train")
    )
    for row, score in zip(rows.values(), bleu[1:]):
        assert float(row["delta"]) == pytest.approx(score - bleu[0], abs=1e-6)
        assert float(row["baseline"]) == pytest.approx(bleu[0])
        assert float(row["gap"]) == pytest.approx(valid[-1] - train[-1])
        assert float(row["rise"]) == pytest.approx(valid[-1] / min(valid))
        assert (row["seeds"], row["std"]) == ("1", "")
        assert re.fullmatch(r"multi30k de-en, \d+ updates", row["training"])
    assert float(rows["ce-smoke"]["p"]) == 1, "its translations are those of the baseline"
    assert f"{bleu[1] - bleu[0]:+.2f}" in (tmp_path / "overfitting.md").read_text(encoding="utf-8")
    assert (tmp_path / "overfitting.png").read_bytes().startswith(b"\x89PNG")


def test_without_cross_entropy_it_says_what_is_missing(runs, tmp_path):
    done = run(LABO, "analyse", "overfitting", *runs[:2], "--out", tmp_path)
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)
    assert "no kind of training was run with cross-entropy, with ls-smoke and with another method" in done.stdout
    assert not list(tmp_path.glob("overfitting.*"))

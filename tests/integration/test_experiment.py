"""A grid of real runs: run, not repeated, killed and resumed, reported."""

import csv
import json
import math
import re
import statistics

import pytest
import yaml
from fairseq_runs import command, kill_in_training, run

LABO = command("labo-fairseq")
PLACE = "bible/de-en"
pytestmark = pytest.mark.once
BROKEN = "labo-dataset.max_tokens1-seed1-smoke"
GRID = {
    "title": "A small grid",
    "baseline": "ls",
    "grid": [
        {"corpus": "bible", "directions": ["de-en"], "methods": ["ls", "labo"], "seeds": [1, 2]},
        {
            "corpus": "bible",
            "directions": ["de-en"],
            "methods": ["labo"],
            "seeds": [1],
            "settings": {"dataset.max_tokens": [1]},
        },
        {"corpus": "bible", "directions": ["de-en"], "methods": ["kd"], "seeds": [1], "teachers": ["ls"]},
    ],
}
WHOLE = [*(f"{method}-seed{seed}-smoke" for method in ("ls", "labo") for seed in (1, 2)), "kd-seed1-smoke"]


def results(folder):
    """Name of a finished run → its scores."""
    return {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))["evaluation"]
        for path in (folder / PLACE).glob("*/result.json")
    }


@pytest.fixture(scope="module")
def finished(bible, tmp_path_factory):
    """The grid's file, the folder of its runs and what the command said; one of its runs cannot work."""
    place = tmp_path_factory.mktemp("grid")
    file = place / "small.yaml"
    file.write_text(yaml.safe_dump(GRID, sort_keys=False), encoding="utf-8")
    done = run(LABO, "experiment", file, "--smoke", "--folder", place / "my runs", "--jobs", "2")
    return file, place / "my runs", done


def test_all_runs_but_the_broken_one_are_complete(finished):
    _, folder, done = finished
    assert sorted(results(folder)) == sorted(WHOLE), done.stdout[-3000:]
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert re.search(rf"failed  bible de-en {BROKEN}  .*The dataset is empty", done.stdout)
    assert done.stdout.rstrip().splitlines()[-1].startswith("labo-fairseq experiment: 1 of 6 runs failed; their logs")
    for name in WHOLE:
        score = results(folder)[name]["tests"]["test"][0]["value"]
        assert f"{name}  BLEU {score:.2f}" in done.stdout
        settings = json.loads((folder / PLACE / name / "settings.json").read_text(encoding="utf-8"))
        assert settings["config"]["common"]["seed"] == int(name.split("seed")[1][0])


def test_a_student_learns_from_its_teacher(finished):
    settings = json.loads((finished[1] / PLACE / "kd-seed1-smoke" / "settings.json").read_text(encoding="utf-8"))
    assert settings["config"]["criterion"]["teacher_path"] == "../ls-seed1-smoke/checkpoints/checkpoint_last.pt"


def test_versions_name_the_revision(finished):
    result = json.loads((finished[1] / PLACE / "ls-seed1-smoke" / "result.json").read_text(encoding="utf-8"))
    assert re.fullmatch(r"[0-9a-f]{40}\+?", result["versions"]["revision"])
    assert result["training"]["seconds"] > 0


def test_again_repeats_nothing_but_what_failed(finished):
    file, folder, _ = finished
    before = {name: (folder / PLACE / name / "result.json").stat().st_mtime_ns for name in WHOLE}
    done = run(LABO, "experiment", file, "--smoke", "--folder", folder)
    assert done.returncode == 1
    assert "6 runs, 5 done" in done.stdout
    assert {name: (folder / PLACE / name / "result.json").stat().st_mtime_ns for name in WHOLE} == before


def test_dry_run_plans_and_does_nothing(finished, tmp_path):
    done = run(LABO, "experiment", finished[0], "--smoke", "--folder", tmp_path / "nothing", "--dry-run")
    assert done.returncode == 0
    assert "6 runs, 0 done" in done.stdout
    assert not (tmp_path / "nothing").exists()
    done = run(LABO, "experiment", finished[0], "--smoke", "--folder", finished[1], "--dry-run")
    assert re.search(r"estimate: \S+ h of training \(as finished runs on the same corpus took here\)", done.stdout)


def test_other_settings_are_a_failure_not_a_result(finished, tmp_path):
    _, folder, _ = finished
    other = tmp_path / "other.yaml"
    content = {"grid": [{**GRID["grid"][0], "methods": ["ls"], "seeds": [1]}]}
    other.write_text(yaml.safe_dump(content), encoding="utf-8")
    done = run(LABO, "experiment", other, "--folder", tmp_path / "runs", "--dry-run")
    assert done.returncode == 0
    # the smoke run under the name of the full one
    (tmp_path / "runs" / PLACE).mkdir(parents=True)
    (tmp_path / "runs" / PLACE / "ls-seed1").symlink_to(folder / PLACE / "ls-seed1-smoke")
    done = run(LABO, "experiment", other, "--folder", tmp_path / "runs")
    assert done.returncode == 1
    assert "holds a run with another checkpoint.save_interval_updates, common.log_interval" in done.stdout


def test_report(finished):
    file, folder, _ = finished
    done = run(LABO, "experiment", "report", file, "--smoke", "--folder", folder)
    assert done.returncode == 0, done.stdout
    made = folder / "experiments" / "small-smoke"
    scores = results(folder)
    values = {
        method: [scores[f"{method}-seed{seed}-smoke"]["tests"]["test"][0]["value"] for seed in seeds]
        for method, seeds in (("ls", (1, 2)), ("labo", (1, 2)), ("kd", (1,)))
    }
    with open(made / "table.csv", encoding="utf-8", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["ls", "labo", "kd"]
    for method, row in rows.items():
        assert float(row["mean"]) == pytest.approx(statistics.mean(values[method]), abs=1e-4)
    assert float(rows["labo"]["std"]) == pytest.approx(statistics.stdev(values["labo"]), abs=1e-4)
    assert float(rows["labo"]["delta"]) == pytest.approx(
        statistics.mean(values["labo"]) - statistics.mean(values["ls"]), abs=2e-4
    )
    assert float(rows["kd"]["delta"]) == pytest.approx(values["kd"][0] - values["ls"][0], abs=2e-4)
    assert (rows["kd"]["std"], rows["ls"]["delta"], rows["ls"]["p"]) == ("", "", "")
    assert 0 < float(rows["labo"]["p"]) <= 1
    differences = [labo - ls for ls, labo in zip(values["ls"], values["labo"])]
    if differences[0] != differences[1]:
        assert float(rows["labo"]["delta_std"]) == pytest.approx(statistics.stdev(differences), abs=1e-4)
        # Student's distribution with one degree of freedom is Cauchy's
        t = abs(statistics.mean(differences)) / (statistics.stdev(differences) / math.sqrt(2))
        assert float(rows["labo"]["p_over_seeds"]) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-4)
    assert (rows["kd"]["delta_std"], rows["kd"]["p_over_seeds"]) == ("", "")
    # one significance test: compare gives the same p for the same pair
    pair = [folder / PLACE / f"{method}-seed1-smoke" for method in ("ls", "kd")]
    compared = run(LABO, "compare", *pair, "--metrics", "bleu", "--json")
    assert compared.returncode == 0, compared.stdout[-3000:]
    assert float(rows["kd"]["p"]) == pytest.approx(json.loads(compared.stdout)[1]["p"], abs=1e-4)
    table = (made / "table.md").read_text(encoding="utf-8")
    assert table.strip() in done.stdout
    best = max(values, key=lambda method: statistics.mean(values[method]))
    assert f"**{statistics.mean(values[best]):.2f}**" in table
    assert scores["ls-seed1-smoke"]["tests"]["test"][0]["signature"] in table
    assert "5 of 6 runs are finished" in table
    for name in ("scores.png", "curves.png"):
        assert (made / name).read_bytes().startswith(b"\x89PNG")


def test_after_several_test_sets_comes_their_mean(multi30k, tmp_path):
    file = tmp_path / "sets.yaml"
    block = {"corpus": "multi30k", "directions": ["de-en"], "methods": ["ls", "labo"], "seeds": [1]}
    file.write_text(yaml.safe_dump({"grid": [block]}), encoding="utf-8")
    done = run(LABO, "experiment", "report", file, "--smoke", "--folder", multi30k[0], "--out", tmp_path)
    assert done.returncode == 0, done.stdout
    with open(tmp_path / "table.csv", encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    for method in ("ls", "labo"):
        *sets, mean = (float(row["mean"]) for row in rows if row["method"] == method)
        assert len(sets) == 3
        assert mean == pytest.approx(statistics.mean(sets), abs=1e-4)
    assert {row["test"] for row in rows[-2:]} == {"mean of the test sets"}
    assert 0 < float(rows[-1]["p"]) <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["report", "FILE", "--metric", "METEOR"],
            "unknown metric 'METEOR': choose from bleu, chrf, chrf++, ter, spbleu, tokenized, compounds, comet",
        ),
        (["FILE", "--only", "6"], "small-smoke has no run 6: they go from 0 to 5"),
    ],
)
def test_mistakes(finished, options, message):
    file, folder, _ = finished
    options = [file if option == "FILE" else option for option in options]
    done = run(LABO, "experiment", *options, "--smoke", "--folder", folder)
    assert done.returncode == 1
    assert done.stdout == f"labo-fairseq experiment: {message}\n"


def test_nothing_to_report(finished, tmp_path):
    done = run(LABO, "experiment", "report", finished[0], "--folder", tmp_path)
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)
    assert "no run of small below" in done.stdout


def test_killed_and_resumed(finished, tmp_path):
    """Killed while a run trains, its processes die with it, and the same command ends with the same scores."""
    _, folder, _ = finished
    small = tmp_path / "small.yaml"
    small.write_text(yaml.safe_dump({"grid": [{**GRID["grid"][0], "seeds": [1]}]}), encoding="utf-8")
    arguments = [LABO, "experiment", str(small), "--smoke", "--folder", str(tmp_path / "runs")]
    log = tmp_path / "runs" / PLACE / "ls-seed1-smoke" / "train.log"
    kill_in_training(arguments, log, '"num_updates": "10"')
    done = run(*arguments)
    assert done.returncode == 0, done.stdout
    assert "Complete. The tables:" in done.stdout
    undisturbed = results(folder)
    assert results(tmp_path / "runs") == {name: undisturbed[name] for name in ("ls-seed1-smoke", "labo-seed1-smoke")}

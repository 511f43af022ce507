"""The main job and its companions as a user runs them."""

import json
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from checkouts import HARD, copy_checkout
from fairseq_runs import command, kill_in_training, run

from labo_fairseq.experiments.run_directory import empty
from labo_fairseq.files import locked

LABO = command("labo-fairseq")
SMOKE = ("--smoke", "--name", "smoke")
DEMO = (LABO, "run", "bible", "de-en", *SMOKE)  # as scripts/run_demo.sh
MADE = Path("bible") / "de-en" / "smoke"


@pytest.fixture(scope="module")
def finished(bible, tmp_path_factory):
    """A folder in which the smoke run of the demo went through, and its output; all names are hard for a shell."""
    place = tmp_path_factory.mktemp("demo")
    checkout, env = copy_checkout(place)
    folder = place / f"my rüns {HARD}"
    done = run("bash", checkout / "scripts" / "run_demo.sh", *SMOKE, "--folder", folder, env=env, cwd=place)
    assert done.returncode == 0, done.stdout[-3000:]
    assert not list(place.rglob("executed"))
    return folder, done.stdout


def test_user_dir():
    done = run(LABO, "user-dir")
    assert done.returncode == 0
    assert done.stdout.strip().endswith("labo_fairseq")


@pytest.mark.once
def test_help_teaches():
    assert "fairseq-train --user-dir" in run(LABO, "--help").stdout
    assert "--fresh" in run(LABO, "run", "--help").stdout


def test_everything_is_there(finished):
    folder, shown = finished
    made = folder / MADE
    result = json.loads((made / "result.json").read_text(encoding="utf-8"))
    scores = result["evaluation"]["tests"]["test"]
    assert [score["name"] for score in scores] == ["BLEU", "chrF2", "BLEU (tokenised)"]
    for score in scores:
        assert f"{score['value']:.2f}  ({score['signature']})" in shown
    assert result["versions"]["labo-fairseq"]
    assert result["training"]["peak_memory_mib"] > 0
    assert (made / "training.png").read_bytes().startswith(b"\x89PNG")
    hypotheses = (made / "translations" / "test.en").read_text(encoding="utf-8").splitlines()
    test = (folder / "bible" / "data-de-en-smoke" / "raw" / "test.en").read_text(encoding="utf-8").splitlines()
    assert len(hypotheses) == len(test)
    assert not any("@@" in line for line in hypotheses)
    *_, program, translate, model = shlex.split(shown.strip().splitlines()[-1])
    assert (program, translate, model) == ("labo-fairseq", "translate", str(made))


def test_again_repeats_nothing(finished):
    folder, shown = finished
    begun = time.time()
    done = run(*DEMO, "--folder", folder)
    assert done.returncode == 0
    assert done.stdout.strip() == shown[shown.index("source / reference") :].strip()
    log = folder / MADE / "train.log"
    assert log.stat().st_mtime < begun


def test_other_settings_are_refused_in_one_line(finished):
    done = run(*DEMO, "--folder", finished[0], "--seed", "2")
    assert done.returncode == 1
    assert re.fullmatch(
        r"labo-fairseq run: .*another config.common.seed: choose another folder or name.*\n", done.stdout
    )


def test_evaluate_takes_the_checkpoint_that_the_run_has_scored(finished):
    done = run(LABO, "evaluate", finished[0] / MADE, "--beam", "1")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "test  (checkpoint_last.pt, beam 1, lenpen 1)" in done.stdout


def test_translate_gives_a_line_for_a_line(finished):
    done = subprocess.run(
        [LABO, "translate", str(finished[0])],
        input="Im Anfang schuf Gott.\n\nUnd Gott sprach: Es werde Licht!\n",
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert len(lines) == 4
    assert [bool(line) for line in lines] == [True, False, True, False]


def test_nothing_to_translate_with(tmp_path):
    done = run(LABO, "translate", tmp_path, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert re.fullmatch(r"labo-fairseq translate: no finished run in .*\n", done.stdout)


@pytest.mark.once
def test_a_run_is_for_one_process(finished):
    folder = finished[0]
    with locked(folder / MADE):
        done = run(*DEMO, "--folder", folder)
    assert done.returncode == 1
    said = done.stdout.splitlines()[-1]
    assert said.startswith(f"labo-fairseq run: another process is at work in {folder / MADE}")


@pytest.mark.once
def test_killed_and_resumed(finished, tmp_path):
    """Killed in the middle of the training, its last checkpoint cut, the same command ends with the same scores."""
    folder = tmp_path / "runs"
    arguments = [*DEMO, "--folder", str(folder)]
    log, last = folder / MADE / "train.log", folder / MADE / "checkpoints" / "checkpoint_last.pt"
    kill_in_training(arguments, log, "Saved checkpoint")
    assert not (folder / MADE / "result.json").exists()
    last.write_bytes(last.read_bytes()[:-1000])
    done = run(*arguments)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "it is kept as checkpoint_last.pt.damaged" in done.stdout
    assert "the training resumes from" in done.stdout
    results = [
        json.loads((place / MADE / "result.json").read_text(encoding="utf-8")) for place in (folder, finished[0])
    ]
    assert results[0]["evaluation"] == results[1]["evaluation"]
    records = [
        re.findall(r'"valid_loss": "(.*?)"', (place / MADE / "train.log").read_text(encoding="utf-8"))
        for place in (folder, finished[0])
    ]
    assert records[0][-1] == records[1][-1]


def test_killed_after_the_last_update(finished):
    """What is still to do is done, without another update."""
    folder = finished[0]
    kept = [folder / MADE / name for name in ("train.log", "checkpoints/checkpoint_last.pt")]
    before = [path.read_bytes() for path in kept]
    evaluation = json.loads((folder / MADE / "result.json").read_text(encoding="utf-8"))["evaluation"]
    for name in ("result.json", "training.json"):
        (folder / MADE / name).unlink()
    done = run(*DEMO, "--folder", folder)
    assert done.returncode == 0, done.stdout[-3000:]
    assert [path.read_bytes() for path in kept] == before
    assert json.loads((folder / MADE / "result.json").read_text(encoding="utf-8"))["evaluation"] == evaluation


@pytest.mark.once
def test_to_start_over_empties_a_folder_that_is_a_link(tmp_path):
    disk, run = tmp_path / "disk", tmp_path / "run"
    for folder in (disk / "old", run):
        folder.mkdir(parents=True)
    (disk / "checkpoint_last.pt").touch()
    (run / "checkpoints").symlink_to(disk)
    (run / "train.log").symlink_to(tmp_path / "gone")
    empty(run, ["checkpoints", "train.log", "result.json"])
    assert [path.name for path in run.iterdir()] == ["checkpoints"]
    assert (run / "checkpoints").resolve() == disk
    assert not list(disk.iterdir())


@pytest.mark.once
def test_fresh_starts_over(finished):
    folder = finished[0]
    before = (folder / MADE / "train.log").stat().st_mtime
    done = run(*DEMO, "--folder", folder, "--seed", "5", "--fresh")
    assert done.returncode == 0, done.stdout[-3000:]
    assert (folder / MADE / "train.log").stat().st_mtime > before
    settings = json.loads((folder / MADE / "settings.json").read_text(encoding="utf-8"))
    assert settings["config"]["common"]["seed"] == 5

"""Finished runs on disk: which kind they are, and what a command says of the kind that it cannot take."""

import json
import os

import pytest

from labo_fairseq.analysis.hypotheses import held_out
from labo_fairseq.cli import main
from labo_fairseq.data.prepared_corpus import Prepared
from labo_fairseq.errors import UserError
from labo_fairseq.evaluation import runs
from labo_fairseq.evaluation.runs import is_image_run, load_run, names_of, newest_run
from labo_fairseq.files import write_json, write_lines


@pytest.fixture
def finished(tmp_path):
    """Folders of three runs, the later ones newer: two on images around one of translation."""
    folders = []
    for number, dataset in enumerate(("digits", {"num_workers": 2}, "digits")):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        result = folder / "result.json"
        result.write_text(json.dumps({"settings": {"config": {"dataset": dataset}}}), encoding="utf-8")
        os.utime(result, (number, number))
        folders.append(folder)
    return folders


def test_the_kind_of_a_run_is_told_by_its_settings(finished, tmp_path):
    assert [is_image_run(folder) for folder in finished] == [True, False, True]
    assert not is_image_run(tmp_path)
    (finished[1] / "result.json").write_text('{"settings": 1}', encoding="utf-8")
    assert not is_image_run(finished[1])


def test_a_run_on_images_is_not_called_damaged(finished):
    with pytest.raises(UserError, match="run0 holds a run on images: this command is for translation runs"):
        load_run(finished[0])


def test_the_newest_run_is_one_of_translation(finished, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="run2 holds a run on images"):
        newest_run(finished[2])
    monkeypatch.setattr(runs, "load_run", lambda folder: folder)
    assert newest_run(tmp_path) == finished[1]
    (finished[1] / "result.json").unlink()
    with pytest.raises(UserError, match="no finished run in"):
        newest_run(tmp_path)


@pytest.mark.parametrize("command", ["compare", "report"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_runs_of_both_kinds_are_refused(finished, capsys, command, order):
    named = [str(finished[number]) for number in order]
    assert main([command, *named]) == 1
    said = f"{finished[0]} is a run on images and {finished[1]} one of translation: name runs of one kind"
    assert capsys.readouterr().err == f"labo-fairseq {command}: {said}\n"


@pytest.mark.parametrize("command", [["evaluate"], ["analyse", "confidence"], ["translate"]])
def test_a_command_for_translations_says_so(finished, capsys, command):
    assert main([*command, str(finished[0])]) == 1
    assert "holds a run on images: this command is for translation runs\n" in capsys.readouterr().err


def test_runs_of_the_same_name_are_told_by_what_differs_in_their_paths(tmp_path):
    assert names_of([tmp_path / "a" / "ls", tmp_path / "b" / "labo"]) == ["ls", "labo"]
    folders = [tmp_path / place for place in ("resnet18/ls", "mobilenetv2/ls", "resnet18/labo")]
    assert names_of(folders) == ["resnet18/ls", "mobilenetv2/ls", "resnet18/labo"]
    assert names_of([tmp_path / "x" / "ls", tmp_path / "x" / "ls" / "more" / "ls"]) == ["ls", "ls/more/ls"]


def test_a_validation_set_that_is_scored_is_no_test_set(tmp_path):
    texts = {"valid": ["a", "b"], "val": ["a", "b"], "test": ["a", "c"]}
    for language in ("de", "en"):
        for split, lines in texts.items():
            (tmp_path / "raw").mkdir(exist_ok=True)
            write_lines(tmp_path / "raw" / f"{split}.{language}", lines)
    write_json(tmp_path / "prepared.json", {"recipe": {}, "tests": ["val", "test"]})
    run = runs.Run(tmp_path, {}, Prepared(tmp_path), (("de", "en"),))
    assert [test.split for test in held_out(run)] == ["valid", "test"]

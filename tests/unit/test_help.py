"""``--help`` of every command, and ``--version``."""

import argparse
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from fairseq_runs import run

from labo_fairseq import __version__
from labo_fairseq.cli import build_parser, main

LABO = Path(sys.executable).with_name("labo-fairseq")


def all_parsers(parser, name="labo-fairseq"):
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, child in action.choices.items():
                yield from all_parsers(child, f"{name} {word}")


PARSERS = dict(all_parsers(build_parser()))


@pytest.mark.parametrize("name", PARSERS)
def test_help_tells_what_a_command_does_and_every_option(name):
    parser = PARSERS[name]
    shown = parser.format_help()
    assert parser.description
    assert parser.description[0].isupper()
    assert "default: False" not in shown
    assert "default: None" not in shown
    options = [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]
    assert [action.dest for action in options if not action.help] == []


def test_a_default_is_told_once():
    parsers = {**PARSERS, **dict(all_parsers(filled(PARSERS["labo-fairseq analyse"])))}
    shown = {name: " ".join(parser.format_help().split()) for name, parser in parsers.items()}
    assert [name for name, text in shown.items() if re.search(r"\(default: [^()]*\) \(default", text)] == []
    assert "test sets (default: all)" in shown["labo-fairseq decoding"]


def filled(parser):
    parser.fill(parser)
    return parser


def test_what_is_missing_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["run", "multi30k"])
    assert "the following arguments are required: direction (" in capsys.readouterr().err


def test_commands_are_whole_in_the_help():
    shown = PARSERS["labo-fairseq"].format_help()
    assert "fairseq-train DATA --user-dir $(labo-fairseq user-dir) --criterion labo" in shown


def test_the_help_says_which_methods_are_not_for_both():
    shown = " ".join(PARSERS["labo-fairseq run"].format_help().split())
    images, text = re.search(r"of images alone (.*); of text alone (.*) \(default: labo\)", shown).groups()
    assert {"maxsup", "ols"} <= set(images.split(", "))
    assert {"ls-rdrop", "ce-rdrop"} <= set(text.split(", "))
    assert "labo" not in images + text


def test_version():
    lines = run(LABO, "--version").stdout.splitlines()
    assert lines[0] == f"labo-fairseq {__version__}"
    assert {f"Python {platform.python_version()}", f"torch {metadata.version('torch')}"} <= set(lines)
    assert any(line.startswith("fairseq") for line in lines)


def test_experiment_grid_is_short_for_experiment_run_grid(capsys, tmp_path):
    plans = []
    for words in (["experiment", "bible"], ["experiment", "run", "bible"]):
        assert main([*words, "--dry-run", "--folder", str(tmp_path)]) == 0
        plans.append(capsys.readouterr().out)
    assert plans[0] == plans[1]
    assert "bible" in plans[0]
    assert main(["experiment", "report", "bible", "--folder", str(tmp_path)]) == 1
    assert "no run of bible" in capsys.readouterr().err

"""Checkpoints that would run code are refused wherever one is read, and nothing of them runs."""

import argparse
import builtins
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils
from fairseq_models import configuration, task_of
from fairseq_runs import CONVOLUTIONAL, LABO, TRANSFORMER, command, run, train, train_command, two_workers

from labo_fairseq.checkpoints import average_checkpoints, load_checkpoint, recover_checkpoints
from labo_fairseq.criterions.distillation import KnowledgeDistillationConfig, KnowledgeDistillationCriterion
from labo_fairseq.errors import UserError
from labo_fairseq.evaluation.evaluate import evaluate_again
from labo_fairseq.evaluation.generate import Decoding
from labo_fairseq.evaluation.runs import Run
from labo_fairseq.fairseq_patches.safe_checkpoint_loading import calculate
from labo_fairseq.subprocesses import USER_DIR

CANARY = "executed"
BLEU = ("--eval-bleu", "--eval-bleu-args", '{"beam": 1, "max_len_b": 5}')


class Pickled:
    """Pickles as what ``function(*arguments)`` returns, with a state if one is given."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


class Raw:
    """Pickles as these opcodes."""

    def __init__(self, opcodes):
        self.opcodes = opcodes


class Pickler(pickle._Pickler):
    def save(self, obj, *args, **kwargs):
        if type(obj) is Raw:
            self.write(obj.opcodes)
        else:
            super().save(obj, *args, **kwargs)


class PickleModule:
    """For ``torch.save``."""

    Pickler = Pickler

    @staticmethod
    def dump(value, file, protocol):
        Pickler(file, protocol).dump(value)


SYSTEM = Pickled(os.system, f"touch {CANARY}")
EVALUATED = Pickled(builtins.eval, f"open({CANARY!r}, 'w').close()")
_RECONSTRUCT = np.ndarray.__reduce__(np.zeros(0))[0]
_SCALAR = np.float64(1).__reduce__()[0]


def forged(kind, flags, content):
    """An array of one number; a dtype without the flags of objects makes pointers of its bytes."""
    dtype = Pickled(np.dtype, kind, False, True, state=(3, "|", None, None, None, -1, -1, flags))
    return Pickled(_RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (1,), dtype, False, content))


# what is saved, and what the message names
BAD = {
    "alone": (SYSTEM, r"(posix|nt)\.system"),
    "in the options": ({"args": argparse.Namespace(lr=[SYSTEM]), "model": {}}, r"(posix|nt)\.system"),
    "in the configuration": ({"cfg": {"model": {"lr": EVALUATED}}, "model": {}}, r"(builtins\.)?eval"),
    "as a parameter": ({"model": {"weight": EVALUATED}}, r"(builtins\.)?eval"),
    "getattr": ({"model": {}, "args": Pickled(getattr, "text", "join")}, r"\S+"),
    "path": ({"model": {}, "args": Path("x")}, r"pathlib\S*"),
    "array of objects": ({"model": {}, "args": np.array([SYSTEM])}, r"numpy\.dtype\('O8'\)|posix\.system"),
    "array of pointers": ({"model": {}, "args": forged("O8", 0, b"A" * 8)}, r"numpy\.dtype\('O8'\)"),
    "array of records": ({"model": {}, "args": forged("V8", 63, b"A" * 8)}, r"numpy\.dtype\('V8'\)"),
    "scalar of an object": (
        {"model": {}, "args": Pickled(_SCALAR, np.dtype("O"), pickle.dumps(EVALUATED))},
        r"numpy\.dtype\('O8'\)",
    ),
}


def write_bad(name, path, zipped=True):
    torch.save(BAD[name][0], path, PickleModule, pickle_protocol=2, _use_new_zipfile_serialization=zipped)
    return path


def refusal(path, name):
    """The line that refuses it, as a pattern."""
    return rf"{re.escape(str(path))} is refused: it asks for ({BAD[name][1]}), which .*trust$"


@pytest.fixture(autouse=True)
def _canary(tmp_path, monkeypatch):
    """No test may have run what it refuses."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / CANARY).exists()


@pytest.fixture(scope="module")
def config(data):
    return configuration(data, *TRANSFORMER)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The folder of two real updates, with counts of n-grams in the checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    train(data, folder, *LABO, *BLEU, updates=2)
    return folder


@pytest.mark.parametrize("bad", [SYSTEM, EVALUATED])
def test_the_canary_sings(bad):
    """These do run where nothing holds them back."""
    pickle.loads(pickle.dumps(bad))
    Path(CANARY).unlink()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", BAD)
def test_refused(tmp_path, name, zipped):
    path = write_bad(name, tmp_path / "bad.pt", zipped)
    with pytest.raises(UserError) as error:
        average_checkpoints([path], tmp_path / "mean.pt")
    assert re.match(refusal(path, name), str(error.value)), error.value
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt"]


@pytest.mark.parametrize("protocol", [0, 4])
def test_refused_in_protocols_that_torch_does_not_write(tmp_path, protocol):
    torch.save({"model": SYSTEM}, tmp_path / "bad.pt", pickle_protocol=protocol)
    with pytest.raises(UserError, match=r"is refused|cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "bad.pt")


def test_classes_get_no_attributes(tmp_path):
    """BUILD with a state sets attributes of whatever lies on the stack."""
    state = Raw(b"cargparse\nNamespace\nN}X\x05\x00\x00\x00forgeK\x01s\x86b")
    torch.save({"model": {}, "args": state}, tmp_path / "bad.pt", PickleModule)
    with pytest.raises(UserError):
        load_checkpoint(tmp_path / "bad.pt")
    assert not hasattr(argparse.Namespace, "forge")


def test_torchscript_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "bad.pt"))
    with pytest.raises(UserError, match=r"is refused: it asks for torch\.jit|cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "bad.pt")


def test_no_variable_switches_the_check_off(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(UserError, match="is refused"):
        load_checkpoint(write_bad("alone", tmp_path / "bad.pt"))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_what_checkpoints_hold_is_read(tmp_path, zipped):
    """Options, counts and scalars of either numpy; what was read can be saved and read again."""
    values = [np.array([3, 1]), np.array([[0.5, 2.0]], order="F"), np.array([True]), np.float64(1.5), np.int64(-2)]
    state = {
        "args": argparse.Namespace(lr=[1.0], seen={1}, raw=b"\xff"),
        "values": values,
        "model": {"w": torch.ones(2)},
    }
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    average_checkpoints([tmp_path / "a.pt"], tmp_path / "b.pt")
    for name in ("a.pt", "b.pt"):
        loaded = load_checkpoint(tmp_path / name)
        assert loaded["args"] == state["args"]
        assert torch.equal(loaded["model"]["w"], state["model"]["w"])
        for mine, theirs in zip(loaded["values"], values):
            assert mine.dtype == theirs.dtype
            assert np.array_equal(mine, theirs)


def test_a_real_checkpoint_is_read(trained):
    state = load_checkpoint(trained / "checkpoint_last.pt")
    assert state["cfg"]["criterion"]["smoothing_warmup_steps"] == 6
    counts = re.findall(r"_bleu_counts", str(state["extra_state"]["metrics"]))
    assert counts, "a training with --eval-bleu keeps arrays"
    assert isinstance(state["model"]["encoder.embed_tokens.weight"], torch.Tensor)
    assert not hasattr(torch.load, "__wrapped__")
    assert torch.load is torch.serialization.load


def test_workers_resume_together(data, trained, tmp_path):
    """The first one sends the others what it has read."""
    restore = ("--restore-file", trained / "checkpoint_last.pt")
    records = two_workers(train_command(data, tmp_path / "save", *LABO, *restore, updates=3))
    assert list(records) == [3]


def test_training_refuses(data, tmp_path):
    bad = write_bad("in the options", tmp_path / "bad.pt")
    done = run(*train_command(data, tmp_path / "save", *LABO, "--restore-file", bad))
    assert done.returncode == 1
    assert re.match(refusal(bad, "in the options"), done.stdout.splitlines()[-1])
    assert "Traceback" not in done.stdout


def test_generation_refuses(data, tmp_path):
    bad = write_bad("in the configuration", tmp_path / "bad.pt", zipped=False)
    done = run(command("fairseq-generate"), data.binarized, "--user-dir", USER_DIR, "--path", bad)
    assert done.returncode == 1
    assert re.match(refusal(bad, "in the configuration"), done.stdout.splitlines()[-1])
    assert "Traceback" not in done.stdout


def test_a_teacher_is_refused(task, tmp_path):
    bad = write_bad("alone", tmp_path / "bad.pt")
    chosen = KnowledgeDistillationConfig(sentence_avg=False, teacher_path=str(bad))
    with pytest.raises(SystemExit) as error:
        KnowledgeDistillationCriterion(chosen, task)
    assert re.match(f"knowledge_distillation: --teacher-path {refusal(bad, 'alone')}", str(error.value))


def test_a_run_is_not_scored_with_it(data, tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    bad = write_bad("as a parameter", folder / "checkpoints" / "checkpoint_last.pt")
    with pytest.raises(UserError, match=refusal(bad, "as a parameter")):
        evaluate_again(Run(folder, {}, data, (("de", "en"),)), "last", None, Decoding())


def test_a_run_does_not_go_on_from_it(tmp_path, capsys):
    bad = write_bad("as a parameter", tmp_path / "checkpoint_last.pt")
    recover_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_last.pt.damaged"]
    assert f"{bad} is refused: it asks for" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["encoder_layers", "decoder_layers", "decoder_attention"])
def test_options_that_fairseq_evaluates_are_values(data, tmp_path, option):
    """fairseq calls eval on some options of the model in a checkpoint."""
    config = configuration(data, *CONVOLUTIONAL)
    args = argparse.Namespace(**{**vars(config.model), "task": "translation", "data": str(data.binarized)})
    setattr(args, option, f"__import__('os').system('touch {CANARY}')")
    history = [{"criterion_name": "", "best_loss": 1.0, "num_updates": 1}]
    iterator = {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}}
    state = {
        "args": args,
        "model": {},
        "optimizer_history": history,
        "extra_state": iterator,
        "last_optimizer_state": None,
    }
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(SystemExit, match="is refused: it must be a number, a list or another plain value"):
        checkpoint_utils.load_model_ensemble([str(tmp_path / "bad.pt")], task=task_of(config))


def test_plain_options_have_their_values():
    for text in ("(0.9, 0.98)", "[(512, 3)] * 2 + [(1024, -1)]", "{'a': 1e-3}", "True", " 0.5", "'a' 'b'", "1 / 4"):
        assert calculate(text) == eval(text)
    for text in ("__import__('os')", "().__class__", "[x for x in (1,)]", "lambda: 1", "print", "f'{1}'", "", "a = 1"):
        with pytest.raises(SystemExit, match="is refused"):
            calculate(text)
    with pytest.raises(TypeError):  # as fairseq expects of eval
        calculate(True)

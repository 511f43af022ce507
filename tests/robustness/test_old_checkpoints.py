"""Checkpoints as older releases of fairseq wrote them are read, and nothing that they name is looked up or run."""

import argparse
import enum
import pickle
import time
from collections import OrderedDict, defaultdict
from typing import Any, List, Optional

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq import utils as fairseq_utils
from fairseq.data import Dictionary
from fairseq.models.transformer import TransformerConfig
from fairseq_models import configuration
from fairseq_runs import LABO, TRANSFORMER, assert_same_parameters, parameters, train, trained_parameters
from omegaconf import II, OmegaConf

import labo_fairseq.criterions  # noqa: F401  it replaces what fairseq loads checkpoints with
from labo_fairseq.checkpoints import average_checkpoints, load_checkpoint
from labo_fairseq.errors import UserError
from labo_fairseq.safe_pickle import Record


class AverageMeter:
    """As in fairseq 0.5 to 0.9, like the next two."""

    def __init__(self):
        self.val = self.avg = self.sum = self.count = 0


class TimeMeter:
    def __init__(self):
        self.init, self.start, self.n = 0, time.time(), 3


class StopwatchMeter:
    def __init__(self):
        self.sum, self.n, self.start_time = torch.tensor(0.5), 2, None


Choices = enum.Enum("Choices", {"json": "json", "simple": "simple"})

METERS = (AverageMeter, TimeMeter, StopwatchMeter)


class Pickler(pickle._Pickler):
    """Writes these meters under the name that they had, and choices under one that cannot be looked up."""

    def save_global(self, obj, name=None):
        if obj in METERS:
            self.write(b"cfairseq.meters\n%b\n" % obj.__name__.encode())
        elif isinstance(obj, enum.EnumMeta):
            self.write(b"cfairseq.dataclass.constants\nChoices\n")
        else:
            super().save_global(obj, name)

    def save_type(self, obj):
        if obj in METERS:
            self.save_global(obj)
        else:
            super().save_type(obj)

    dispatch = {**pickle._Pickler.dispatch, type: save_type}  # noqa: RUF012  as in pickle


class PickleModule:
    """For ``torch.save``."""

    Pickler = Pickler

    @staticmethod
    def dump(value, file, protocol):
        Pickler(file, protocol).dump(value)


class Called:
    """Pickles as what ``function(*arguments)`` returns."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def save(state, path, zipped=False):
    torch.save(state, path, PickleModule, pickle_protocol=2, _use_new_zipfile_serialization=zipped)
    return path


@pytest.fixture(scope="module")
def config(data):
    return configuration(data, *TRANSFORMER)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The folder of two real updates."""
    folder = tmp_path_factory.mktemp("trained")
    train(data, folder, *LABO, updates=2)
    return folder


@pytest.fixture
def state(trained):
    return load_checkpoint(trained / "checkpoint_last.pt")


def options(state):
    """As one namespace, which is what checkpoints held before 0.10."""
    flat = {}
    for group in ("common", "optimization", "dataset", "checkpoint", "optimizer", "lr_scheduler", "task", "model"):
        section = state["cfg"][group]
        flat.update(vars(section) if isinstance(section, argparse.Namespace) else section)
    names = {"criterion": "labo", "optimizer": "adam", "lr_scheduler": "fixed", "task": "translation"}
    return argparse.Namespace(**{**flat, **names, "arch": "transformer"})


def old(state):
    """The layout of 0.5 to 0.9: ``args`` and no ``cfg``, meters among what else is kept."""
    meters = OrderedDict(train_loss=AverageMeter(), wps=TimeMeter(), train_wall=StopwatchMeter())
    kept = {"epoch": 1, "val_loss": 8.0, "train_iterator": state["extra_state"]["train_iterator"], "best": 8.0}
    return {
        "args": options(state),
        "model": state["model"],
        "optimizer_history": state["optimizer_history"],
        "last_optimizer_state": state["last_optimizer_state"],
        "extra_state": {**kept, "train_meters": meters},
    }


@pytest.mark.parametrize("zipped", [False, True], ids=["legacy", "zip"])
def test_meters(state, tmp_path, task, zipped):
    path = save(old(state), tmp_path / "old.pt", zipped)
    read = load_checkpoint(path)
    meters = read["extra_state"]["train_meters"]
    assert list(meters) == ["train_loss", "wps", "train_wall"]
    assert meters["wps"].n == 3
    assert meters["train_wall"].sum == 0.5
    (model,), _ = checkpoint_utils.load_model_ensemble([str(path)], task=task)
    assert_same_parameters(trained_parameters(model.state_dict()), trained_parameters(state["model"]))


def test_training_continues_from_an_old_checkpoint(data, state, tmp_path):
    path = save(old(state), tmp_path / "old.pt")
    records = train(data, tmp_path / "save", *LABO, "--restore-file", path, updates=3)
    assert list(records) == [3]


@pytest.mark.parametrize("zipped", [False, True], ids=["legacy", "zip"])
def test_configurations_of_omegaconf(state, trained, tmp_path, task, zipped):
    """With the types of fairseq's data classes, choices, lists and interpolations."""
    settings = OmegaConf.create(
        {name: section for name, section in state["cfg"].items() if not isinstance(section, argparse.Namespace)}
    )
    OmegaConf.set_struct(settings, True)
    model = vars(state["cfg"]["model"])
    structured = OmegaConf.structured(TransformerConfig(dropout=0.25, activation_dropout=II("model.dropout")))
    changed = {
        **state,
        "cfg": settings,
        "model_options": structured.copy(),
        "chosen": Choices.simple,
        "types": [Optional[int], List[str], Any, int, TransformerConfig],
        "counts": defaultdict(int, a=1),
    }
    path = save(changed, tmp_path / "cfg.pt", zipped)
    read = load_checkpoint(path)
    assert read["cfg"] == OmegaConf.to_container(settings)
    assert read["chosen"] == "simple"
    assert read["model_options"]["dropout"] == 0.25
    assert read["model_options"]["activation_dropout"] == "${model.dropout}"
    assert read["model_options"]["encoder"]["layers"] == 6
    assert read["counts"] == {"a": 1}
    assert not any(holds_record(value) for value in read.values())
    read["cfg"]["model"] = argparse.Namespace(**model)
    average_checkpoints([save(read, tmp_path / "a.pt")], tmp_path / "b.pt")
    (loaded,), _ = checkpoint_utils.load_model_ensemble([str(tmp_path / "b.pt")], task=task)
    assert loaded.encoder.embed_tokens.weight.shape == state["model"]["encoder.embed_tokens.weight"].shape
    assert_same_parameters(parameters(trained), parameters(trained))


def holds_record(value):
    if isinstance(value, (list, tuple, set)):
        return any(map(holds_record, value))
    if isinstance(value, (dict, argparse.Namespace)):
        return any(map(holds_record, (value if isinstance(value, dict) else vars(value)).values()))
    return isinstance(value, Record) or (isinstance(value, type) and issubclass(value, Record))


def test_dictionaries(state, task, tmp_path):
    """As in the ``task_state`` of speech models."""
    dictionary = task.target_dictionary
    path = save({**state, "task_state": {"target_dictionary": dictionary, "all": [dictionary]}}, tmp_path / "a.pt")
    average_checkpoints([path], tmp_path / "b.pt")
    for name in ("a.pt", "b.pt"):
        read = load_checkpoint(tmp_path / name)["task_state"]["target_dictionary"]
        assert type(read) is Dictionary
        assert vars(read) == vars(dictionary)


def test_nothing_of_fairseq_is_called(state, tmp_path, monkeypatch):
    """This function would evaluate its argument."""
    monkeypatch.chdir(tmp_path)
    called = Called(fairseq_utils.eval_str_list, "open('executed', 'w').close()")
    read = load_checkpoint(save({**state, "called": called}, tmp_path / "a.pt"))
    assert not (tmp_path / "executed").exists()
    assert read["called"] == "open('executed', 'w').close()"


@pytest.mark.parametrize(
    "forged", [{"symbols": [1], "count": [1]}, {"symbols": ["a"]}, {"symbols": ["a"], "count": ["b"]}, {}]
)
def test_a_forged_dictionary_is_refused(state, tmp_path, forged):
    dictionary = Dictionary()
    vars(dictionary).clear()
    vars(dictionary).update(forged)
    with pytest.raises(UserError, match=r"is refused: it asks for fairseq\.data\.Dictionary with a forged state"):
        load_checkpoint(save({**state, "task_state": {"d": dictionary, **dict.fromkeys(forged)}}, tmp_path / "a.pt"))

"""The mean of checkpoints, tiny ones in fairseq's layout and those of a real training."""

import argparse

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq_runs import inner, run, train_command

from labo_fairseq.checkpoints import average_checkpoints, load_checkpoint, newest_checkpoints
from labo_fairseq.errors import UserError


def checkpoint(folder, name, dtype=torch.float32, **model):
    """A checkpoint like fairseq's; values may be tensors."""
    tensors = {
        key: value if torch.is_tensor(value) else torch.tensor(value, dtype=dtype) for key, value in model.items()
    }
    state = {"args": argparse.Namespace(arch="a"), "model": tensors, "extra_state": {"train_iterator": {"epoch": name}}}
    path = folder / f"checkpoint{name}.pt"
    torch.save(state, path)
    return path


def averaged(folder, *paths):
    average_checkpoints(paths, folder / "mean.pt")
    return load_checkpoint(folder / "mean.pt")


def test_mean(tmp_path):
    paths = [
        checkpoint(tmp_path, number, weight=[[1.0 * number, -2.0]], count=torch.tensor([number]))
        for number in (1, 2, 6)
    ]
    state = averaged(tmp_path, *paths)
    assert torch.equal(state["model"]["weight"], torch.tensor([[3.0, -2.0]]))
    assert torch.equal(state["model"]["count"], torch.tensor([6])), "integers are the newest's"
    assert state["extra_state"]["train_iterator"]["epoch"] == 6
    assert state["args"].arch == "a"


def test_one_is_its_own_mean(tmp_path):
    path = checkpoint(tmp_path, 1, weight=[0.1, 0.2], count=torch.tensor(3))
    state, same = load_checkpoint(path), averaged(tmp_path, path)
    assert all(torch.equal(state["model"][name], same["model"][name]) for name in state["model"])


def test_half_precision_is_summed_in_single(tmp_path):
    """The sum of these is above the largest half, and half's own steps there are 32 wide."""
    paths = [checkpoint(tmp_path, number, torch.float16, weight=[60000.0, 1.0]) for number in (1, 2, 3)]
    weight = averaged(tmp_path, *paths)["model"]["weight"]
    assert weight.dtype == torch.float16
    assert torch.equal(weight, torch.tensor([60000.0, 1.0], dtype=torch.float16))


@pytest.mark.parametrize("model", [{"weight": [1.0]}, {"weight": [1.0, 2.0], "bias": [0.0]}])
def test_different_models(tmp_path, model):
    paths = [checkpoint(tmp_path, 1, weight=[1.0, 2.0]), checkpoint(tmp_path, 2, **model)]
    with pytest.raises(UserError, match=r"checkpoint2\.pt .*different models"):
        averaged(tmp_path, *paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint1.pt", "checkpoint2.pt"]


class Stranger:
    """What no checkpoint of fairseq holds."""


def other_pickle(path):
    torch.save({"model": {}, "stranger": Stranger()}, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_text("text"), "cannot be read as a checkpoint"),
        (lambda path: path.write_bytes(b""), "cannot be read as a checkpoint"),
        (lambda path: torch.save({"weight": torch.ones(1)}, path), "not a checkpoint of fairseq"),
        (other_pickle, r"is refused: it asks for test_average\.Stranger"),
    ],
)
def test_other_files(tmp_path, write, message):
    path = tmp_path / "checkpoint1.pt"
    write(path)
    with pytest.raises(UserError, match=message) as caught:
        averaged(tmp_path, path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_newest(tmp_path):
    for name in ("1", "2", "9", "10", "_best", "_last", "_1_50", "_2_1000", "_best_30.5"):
        (tmp_path / f"checkpoint{name}.pt").touch()
    assert [path.name for path in newest_checkpoints(tmp_path, 3)] == [f"checkpoint{n}.pt" for n in (2, 9, 10)]
    with pytest.raises(UserError, match="has 4 checkpoints of epochs and 2 of updates, not 5"):
        newest_checkpoints(tmp_path, 5)
    with pytest.raises(UserError, match="cannot average 0 checkpoints"):
        newest_checkpoints(tmp_path, 0)


def test_newest_of_updates(tmp_path):
    for name in ("_best", "_last", "_1_50", "_2_1000", "_1_200"):
        (tmp_path / f"checkpoint{name}.pt").touch()
    assert [path.name for path in newest_checkpoints(tmp_path, 2)] == ["checkpoint_1_200.pt", "checkpoint_2_1000.pt"]


def test_mean_of_a_training_is_a_model(data, tmp_path):
    """fairseq loads and validates it; a mean of checkpoints on the way has a finite loss of its own."""
    command = train_command(data, tmp_path, "--save-interval-updates", "2", updates=6)
    done = run(*command)
    assert done.returncode == 0, done.stdout[-3000:]
    assert len(inner(done.stdout)) == 6
    paths = newest_checkpoints(tmp_path, 3)
    assert [path.name for path in paths] == [f"checkpoint_1_{update}.pt" for update in (2, 4, 6)]
    mean = averaged(tmp_path, *paths)
    models = [checkpoint_utils.load_checkpoint_to_cpu(str(path))["model"] for path in paths]
    for name, tensor in mean["model"].items():
        torch.testing.assert_close(tensor, torch.stack([model[name] for model in models]).mean(0), msg=name)
    (model,), _ = checkpoint_utils.load_model_ensemble([str(tmp_path / "mean.pt")])
    assert torch.equal(model.state_dict()["encoder.embed_tokens.weight"], mean["model"]["encoder.embed_tokens.weight"])

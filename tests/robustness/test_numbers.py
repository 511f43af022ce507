"""Numbers that are none, in the logits: a training stops where they come up, whatever its precision."""

import math
import re

import pytest
import torch
from fairseq_runs import LABO, parameters, run, train, train_command

from labo_fairseq.checkpoints import load_checkpoint
from labo_fairseq.losses import (
    anti_focal_terms,
    confidence_penalty_terms,
    distillation_terms,
    focal_terms,
    labo_terms,
    linear_labo_terms,
)

PAST_WARMUP = ("--criterion", "labo", "--smoothing-warmup-steps", "0")
half_on_cpu = pytest.mark.skipif(torch.__version__ < (2, 1), reason="this torch has no float16 arithmetic on a CPU")


@pytest.fixture(scope="module")
def sound(data, tmp_path_factory):
    """The checkpoint of three good updates."""
    folder = tmp_path_factory.mktemp("sound")
    train(data, folder, *LABO, updates=3)
    return folder / "checkpoint_last.pt"


def poison(checkpoint, value, path):
    """A copy of a checkpoint with one parameter of the last layer replaced."""
    state = load_checkpoint(checkpoint)
    state["model"]["decoder.layers.0.final_layer_norm.bias"][0] = value
    torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("criterion", "value", "update"),
    [
        (LABO, math.nan, 4),
        (PAST_WARMUP, math.inf, 4),
        ((*PAST_WARMUP, "--fused-projection"), -math.inf, 4),
        (("--criterion", "focal_loss", "--reset-optimizer"), math.nan, 1),
    ],
    ids=["warmup", "labo", "fused", "focal"],
)
def test_stops_with_the_number_of_the_update(data, sound, tmp_path, criterion, value, update):
    bad = poison(sound, value, tmp_path / "bad.pt")
    done = run(*train_command(data, tmp_path / "save", *criterion, "--restore-file", bad))
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert re.match(rf"[a-z_]+: the loss of update {update} is (nan|inf|-inf): NaN or inf in the logits", last)
    assert "Go on from the last checkpoint with a lower --lr" in last
    assert "Traceback" not in done.stdout
    assert not list((tmp_path / "save").glob("*.pt")), "nothing of a poisoned model is saved"


@half_on_cpu
def test_the_loss_scale_of_fp16_does_not_hide_it(data, sound, tmp_path):
    """fairseq alone would halve the scale and leave the update out, again and again, until the scale is too small."""
    bad = poison(sound, math.nan, tmp_path / "bad.pt")
    options = (*LABO, "--restore-file", bad, "--fp16", "--fp16-no-flatten-grads", "--reset-optimizer")
    done = run(*train_command(data, tmp_path / "save", *options))
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("labo: the loss of update 1 is nan")
    assert "overflow" not in done.stdout


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="fairseq corrects an overflow of the loss scale only on a GPU"
)
def test_a_loss_scale_that_overflows_is_no_divergence(data, tmp_path):
    options = (*LABO, "--fp16", "--fp16-init-scale", str(2**20))
    done = run(*train_command(data, tmp_path, *options, updates=3))
    assert done.returncode == 0, done.stdout[-3000:]
    assert "gradient overflow detected" in done.stdout
    assert all(torch.isfinite(value).all() for value in parameters(tmp_path).values() if value.is_floating_point())


def linear(logits, target):
    return linear_labo_terms(torch.eye(len(logits)), logits.T.contiguous(), target)


def distil(logits, target):
    return distillation_terms(logits, target, torch.full(logits.shape, 1 / logits.size(-1)), 0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "terms_of", [labo_terms, linear, confidence_penalty_terms, focal_terms, anti_focal_terms, distil]
)
def test_no_loss_hides_them(terms_of, value):
    """One bad logit, of the target or not, makes the loss of its token bad and of no other."""
    for position in range(4):
        logits = torch.linspace(-2, 2, 12).reshape(3, 4)
        logits[1, position] = value
        finite = torch.isfinite(terms_of(logits, torch.tensor([0, 1, 2])).loss)
        assert finite[1].logical_not()
        if terms_of is not linear:  # where 0 times the bad weight is bad as well
            assert finite.tolist() == [True, False, True]

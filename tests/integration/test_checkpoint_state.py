"""All that decides how a training goes on is in its checkpoints: resumed after every epoch, it is the same training."""

import re

import pytest
import torch
from fairseq.data import FairseqDataset
from fairseq.optim.dynamic_loss_scaler import DynamicLossScaler
from fairseq.tasks import FairseqTask
from fairseq_runs import assert_same_parameters, parameters, train_here, validations

from labo_fairseq.checkpoints import load_checkpoint
from labo_fairseq.fairseq_patches.exact_resume import _restore_scaler, _scaler_state

#: a rate so high that the validation nll goes up and down; short epochs
RESTLESS = (
    *("--train-subset", "test", "--max-tokens", "1000", "--lr", "0.15", "--criterion", "labo"),
    *("--smoothing-warmup-steps", "0", "--patience", "3", "--lr-scheduler", "reduce_lr_on_plateau"),
    *("--lr-shrink", "0.5", "--lr-patience", "1"),
)
LIMIT = 14  # epochs, which the training must not need


def rates(log):
    """The learning rate at the end of every epoch."""
    return [float(rate) for rate in re.findall(r'"train_lr": "([^"]+)"', log)]


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """A training that patience ends after the plateau has changed its rate: its folder and its log."""
    folder = tmp_path_factory.mktemp("undisturbed")
    log = train_here(data, folder, *RESTLESS, "--max-epoch", LIMIT)
    assert "early stop since" in log
    assert len(set(rates(log))) > 1
    return folder, log


def test_resumed_after_every_epoch(data, tmp_path, undisturbed):
    folder, log = undisturbed
    expected = validations(log)
    assert 4 <= len(expected) < LIMIT
    logs = [train_here(data, tmp_path, *RESTLESS, "--max-epoch", epoch) for epoch in range(1, len(expected) + 1)]
    records = [validations(log) for log in logs]
    assert [len(of_start) for of_start in records] == [1] * len(expected)
    assert [of_start[0]["nll_loss"] for of_start in records] == [record["nll_loss"] for record in expected]
    assert [rate for log in logs for rate in rates(log)] == rates(log)
    assert "early stop since" in logs[-1]
    assert not any("early stop since" in log for log in logs[:-1])
    assert_same_parameters(parameters(tmp_path), parameters(folder))


def test_resumed_where_every_epoch_adds_to_the_seed(data, tmp_path):
    """fairseq makes the batches of all epochs in the first one, unless it is told otherwise."""
    options = ("--train-subset", "test", "--max-tokens", "1000", "--criterion", "labo", "--update-ordered-indices-seed")
    train_here(data, tmp_path / "whole", *options, "--max-epoch", "4")
    for epoch in (2, 4):
        train_here(data, tmp_path / "parts", *options, "--max-epoch", epoch)
    assert_same_parameters(parameters(tmp_path / "parts"), parameters(tmp_path / "whole"))


def test_tasks_may_give_the_batches_options_by_position():
    """As tasks of fairseq's examples do, with the epoch among them."""

    class Sentences(FairseqDataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return index

        def num_tokens(self, index):
            return 1

        def size(self, index):
            return 1

        def collater(self, samples):
            return samples

    class Task(FairseqTask):
        def get_batch_iterator(self, dataset, *options, **named):
            return super().get_batch_iterator(dataset, *options, **named)

    for epoch in (1, 2):
        iterator = Task(None).get_batch_iterator(Sentences(), None, 2, None, False, 1, 5, 1, 0, 0, epoch)
        assert sorted(index for batch in iterator.next_epoch_itr(shuffle=True) for index in batch) == list(range(8))
        assert iterator.epoch == epoch


def test_a_training_that_has_ended_is_not_trained_further(data, tmp_path, undisturbed):
    folder, _ = undisturbed
    last = (folder / "checkpoint_last.pt").read_bytes()
    log = train_here(data, folder, *RESTLESS, "--max-epoch", LIMIT)
    assert "this training has ended: --patience 3" in log
    assert not validations(log)
    assert (folder / "checkpoint_last.pt").read_bytes() == last
    # but with more patience it is
    log = train_here(data, folder, *RESTLESS, "--max-epoch", LIMIT, "--patience", "100", updates=1)
    assert "this training has ended: --patience 100, --max-update 1" in log


def test_a_training_does_not_count_on_from_another_one_in_its_process(data, tmp_path, undisturbed):
    train_here(data, tmp_path, *RESTLESS, "--max-epoch", "1")
    state = load_checkpoint(tmp_path / "checkpoint_last.pt")["extra_state"]
    assert state["best"] == state["val_loss"] == state["early_stopping"]["best"]
    assert state["early_stopping"]["num_runs"] == 0


def test_loss_scale_of_fp16():
    """Updated and overflown at any moments, it goes on as the scaler that was never saved."""
    never_saved, scaler = (DynamicLossScaler(init_scale=2.0**10, scale_window=4) for _ in range(2))
    for update in range(40):
        for one in (never_saved, scaler):
            if update % 11 == 5:
                with pytest.raises(OverflowError):
                    one.check_overflow(float("inf"))
            else:
                one.update()
        assert scaler.loss_scale == never_saved.loss_scale
        state = _scaler_state(scaler)
        scaler = DynamicLossScaler(scale_window=4)
        _restore_scaler(scaler, state)
    assert vars(scaler) == vars(never_saved)


def test_loss_scale_of_amp():
    scaler = torch.cuda.amp.GradScaler(init_scale=8.0, enabled=False)
    assert _scaler_state(scaler) == {}  # without a GPU
    _restore_scaler(scaler, {})
    _restore_scaler(scaler, {"scale": 2.0})  # of a training that had one

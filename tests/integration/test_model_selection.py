"""What fairseq decides by a validation value goes by one that means the same before and after the smoothing warm-up."""

import re
import shutil

import pytest
from fairseq_runs import command, run, train_here, validations

from labo_fairseq.checkpoints import load_checkpoint
from labo_fairseq.subprocesses import USER_DIR

#: a warm-up of two epochs of thirteen updates, after which the loss jumps up for good
WARM_UP = ("--criterion", "labo", "--smoothing-warmup-steps", "26", "--max-tokens", "4000", "--lr", "0.02")


def state_of(folder, name="best"):
    return load_checkpoint(folder / f"checkpoint_{name}.pt")


def updates_of(state):
    return state["optimizer_history"][-1]["num_updates"]


def train_epochs(data, folder, *options, epochs):
    """The log of a training of several epochs."""
    return train_here(data, folder, *options, "--max-epoch", epochs)


@pytest.fixture(scope="module")
def selected(data, tmp_path_factory):
    """A training through the end of its warm-up, with all that goes by a validation value: its folder and its log."""
    folder = tmp_path_factory.mktemp("selected")
    options = ("--patience", "2", "--keep-best-checkpoints", "2", "--lr-scheduler", "reduce_lr_on_plateau")
    return folder, train_epochs(data, folder, *WARM_UP, *options, "--lr-shrink", "0.5", epochs=6)


def test_the_loss_jumps_and_the_model_gets_better(selected):
    """So that the tests below test something."""
    records = validations(selected[1])
    before, after = ([r for r in records if (r["num_updates"] > 26) == past] for past in (False, True))
    assert before
    assert max(r["loss"] for r in before[1:]) < min(r["loss"] for r in after)
    assert max(r["nll_loss"] for r in after) < min(r["nll_loss"] for r in before)


def test_the_best_checkpoint_is_the_most_accurate(selected):
    folder, log = selected
    records = validations(log)
    best = max(records, key=lambda record: record["accuracy"])
    state = state_of(folder)
    assert updates_of(state) == best["num_updates"] > 26
    assert state["extra_state"]["val_loss"] == state["extra_state"]["best"] == best["accuracy"]
    assert records[-1]["best_accuracy"] == best["accuracy"]
    kept = sorted(path.name for path in folder.glob("checkpoint.best*"))
    highest = sorted(record["accuracy"] for record in records)[-2:]
    assert [name[: name.rindex(".") - 1] for name in kept] == [f"checkpoint.best_accuracy_{a:.3f}" for a in highest]


def test_patience_and_plateau_do_not_take_the_end_of_the_warmup_for_a_failure(selected):
    records = validations(selected[1])
    assert len(records) == 6
    assert float(re.findall(r'"train_lr": "([^"]+)"', selected[1])[-1]) == 0.02


def test_the_log_says_it_once(selected):
    assert selected[1].count("go by the validation accuracy") == 1


@pytest.mark.parametrize(
    ("options", "metric"),
    [
        ((*WARM_UP, "--best-checkpoint-metric", "ppl"), "ppl"),
        ((*WARM_UP, "--best-checkpoint-metric=loss"), "loss"),
        (("--criterion", "label_smoothed_cross_entropy"), "loss"),
        (("--criterion", "focal_loss"), "accuracy"),
        ((*WARM_UP, "--best-checkpoint-metric", "nll_loss"), "nll_loss"),
    ],
    ids=["ppl named", "loss named", "fairseq's", "focal", "nll named"],
)
def test_a_named_metric_and_the_criterions_of_fairseq_keep_theirs(data, tmp_path, options, metric):
    log = train_epochs(data, tmp_path, *options, "--max-tokens", "9000", epochs=2)
    assert f"best_{metric}" in validations(log)[-1]
    assert ("go by the validation" in log) == (metric == "accuracy")
    assert ("a model of the warm-up may stay the best" in log) == (options[:2] == WARM_UP[:2])
    assert state_of(tmp_path)["cfg"]["checkpoint"]["best_checkpoint_metric"] == metric


HYDRA = """
# @package _group_
common: {{user_dir: {user_dir}, seed: 3, log_format: json, log_interval: 1}}
distributed_training: {{distributed_world_size: 1}}
task: {{_name: translation, data: {data}}}
dataset: {{max_tokens: 9000, num_workers: 0}}
optimization: {{lr: [0.01], max_epoch: 2}}
checkpoint: {{save_dir: {save_dir}, no_epoch_checkpoints: true{metric}}}
optimizer: {{_name: adam}}
lr_scheduler: {{_name: fixed}}
criterion: {{_name: labo}}
model:
  _name: transformer
  share_all_embeddings: true
  base_layers: 0
  encoder: {{embed_dim: 32, ffn_embed_dim: 32, layers: 1, attention_heads: 2}}
  decoder: {{embed_dim: 32, ffn_embed_dim: 32, layers: 1, attention_heads: 2}}
"""


@pytest.mark.parametrize(
    ("in_file", "on_command_line", "metric"),
    [
        ("", (), "accuracy"),
        (", best_checkpoint_metric: loss", (), "loss"),
        ("", ("checkpoint.best_checkpoint_metric=loss",), "loss"),
    ],
)
def test_hydra(data, tmp_path, in_file, on_command_line, metric):
    config = tmp_path / "config"
    config.mkdir()
    save_dir = tmp_path / "save"
    text = HYDRA.format(user_dir=USER_DIR, data=data.binarized, save_dir=save_dir, metric=in_file)
    (config / "tiny.yaml").write_text(text, encoding="utf-8")
    done = run(
        *(command("fairseq-hydra-train"), "--config-dir", "config", "--config-name", "tiny", *on_command_line),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert state_of(save_dir)["cfg"]["checkpoint"]["best_checkpoint_metric"] == metric
    assert f'valid_best_{metric}"' in done.stdout


def test_a_best_value_that_was_counted_by_the_loss_does_not_count_on(data, tmp_path):
    """As in every checkpoint of before: its best loss of the warm-up would stay the lowest."""
    early = ("--patience", "3", "--lr-scheduler", "reduce_lr_on_plateau")
    train_epochs(data, tmp_path, *WARM_UP, *early, "--best-checkpoint-metric", "loss", epochs=2)
    shutil.copytree(tmp_path, tmp_path / "again")
    log = train_epochs(data, tmp_path, *WARM_UP, *early, epochs=4)
    third, fourth = validations(log)
    assert "compared models by the validation loss: the best accuracy is counted anew" in log
    assert "best_accuracy" not in third
    assert fourth["best_accuracy"] == max(third["accuracy"], fourth["accuracy"])
    assert updates_of(state_of(tmp_path)) > 26
    # and one that went by the loss, and still does, keeps it
    log = train_epochs(data, tmp_path / "again", *WARM_UP, *early, "--best-checkpoint-metric", "loss", epochs=3)
    assert "counted anew" not in log
    assert validations(log)[0]["best_loss"] < validations(log)[0]["loss"]


def test_finetuned_from_a_label_smoothed_model(data, tmp_path):
    smoothing = ("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1", "--max-tokens", "9000")
    train_epochs(data, tmp_path / "ls", *smoothing, epochs=1)
    pretrained = ("--finetune-from-model", tmp_path / "ls" / "checkpoint_last.pt")
    log = train_epochs(data, tmp_path / "labo", *WARM_UP, *pretrained, epochs=3)
    assert validations(log)[-1]["best_accuracy"] == max(record["accuracy"] for record in validations(log))
    assert updates_of(state_of(tmp_path / "labo")) > 26

"""The criterion in the real fairseq-train, fairseq-generate and fairseq-hydra-train."""

import re
import signal
import subprocess

import pytest
import yaml
from fairseq.criterions import CRITERION_REGISTRY
from fairseq_runs import (
    CONVOLUTIONAL,
    LABO,
    LSTM,
    TRANSFORMER,
    assert_same_parameters,
    command,
    inner,
    parameters,
    run,
    train,
    train_command,
    two_workers,
)
from fork_fairseq import fork, job
from hydra.core.hydra_config import HydraConfig

from labo_fairseq.criterions.base import RegularizedCriterion
from labo_fairseq.fairseq_patches.command_line import as_written
from labo_fairseq.subprocesses import USER_DIR

WARMUP = 6  # as in LABO


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """Ten updates in one go: the run that the others must equal."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, train(data, folder, *LABO)


def assert_warmup_is_exact(records, updates=10):
    """Smoothing with P*, which logs α, begins with update T_w + 1."""
    assert sorted(records) == list(range(1, updates + 1))
    assert [update for update in records if "alpha" in records[update]] == list(range(WARMUP + 1, updates + 1))


def test_warmup_is_exact(uninterrupted):
    assert_warmup_is_exact(uninterrupted[1])


def test_warmup_is_the_label_smoothing_of_fairseq_to_the_last_bit(data, tmp_path):
    train(data, tmp_path / "labo", "--criterion", "labo", "--smoothing-warmup-steps", "100", updates=5)
    smoothing = ("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1")
    train(data, tmp_path / "ls", *smoothing, updates=5)
    assert_same_parameters(parameters(tmp_path / "labo"), parameters(tmp_path / "ls"))


def test_warmup_counts_updates_not_micro_batches(data, tmp_path):
    assert_warmup_is_exact(train(data, tmp_path, *LABO, "--update-freq", "4"))


def test_resumed_in_the_warmup_and_past_it(data, tmp_path, uninterrupted):
    folder, expected = uninterrupted
    records = {}
    for updates in (3, 8, 10):
        records.update(train(data, tmp_path, *LABO, updates=updates))
    assert_warmup_is_exact(records)
    assert [records[update]["loss"] for update in records] == [expected[update]["loss"] for update in expected]
    assert_same_parameters(parameters(tmp_path), parameters(folder))


def test_killed_and_resumed(data, tmp_path, uninterrupted):
    folder, expected = uninterrupted
    arguments = train_command(data, tmp_path, *LABO, "--save-interval-updates", "2")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    with process:
        for line in process.stdout:
            if 7 in inner(line):
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    done = run(*arguments)
    assert done.returncode == 0, done.stdout[-3000:]
    records = inner(done.stdout)
    assert min(records) in (7, 9), "it resumed from the checkpoint of update 6 or 8"
    assert all(records[update]["loss"] == expected[update]["loss"] for update in records)
    assert_same_parameters(parameters(tmp_path), parameters(folder))


def test_two_workers_make_the_updates_of_one(data, tmp_path):
    # Worker i takes every second batch. Without dropout, whose masks differ between workers, and with plain
    # gradient descent: Adam makes whole steps of the rounding errors where the gradient is 0.
    options = (*LABO, "--dropout", "0", "--optimizer", "sgd", "--lr", "0.5")
    one = train(data, tmp_path / "one", *options, "--update-freq", "2")
    two = two_workers(train_command(data, tmp_path / "two", *options))
    assert_warmup_is_exact(two)
    for name in ("loss", "nll_loss", "alpha", "entropy", "p_star", "wpb"):
        mine, theirs = ([r[name] for r in records.values() if name in r] for records in (one, two))
        assert theirs == pytest.approx(mine, abs=2e-3), name
    assert_same_parameters(parameters(tmp_path / "two"), parameters(tmp_path / "one"), rtol=1e-4, atol=1e-5)


def test_hydra(data, tmp_path, uninterrupted):
    """The options of TRANSFORMER, OPTIMIZATION and LABO in Hydra's words: the same training."""
    config = tmp_path / "config"
    config.mkdir()
    (config / "tiny.yaml").write_text(
        f"""
# @package _group_
common: {{user_dir: {USER_DIR}, seed: 3, log_format: json, log_interval: 1}}
distributed_training: {{distributed_world_size: 1}}
task: {{_name: translation, data: {data.binarized}}}
dataset: {{max_tokens: 400, num_workers: 0}}
optimization: {{lr: [0.001], max_update: 10}}
checkpoint: {{save_dir: {tmp_path / "save"}, no_epoch_checkpoints: true}}
optimizer: {{_name: adam}}
lr_scheduler: {{_name: fixed}}
criterion: {{_name: labo, smoothing_warmup_steps: 6}}
model:
  _name: transformer
  share_all_embeddings: true
  base_layers: 0
  dropout: 0.1
  encoder: {{embed_dim: 32, ffn_embed_dim: 32, layers: 1, attention_heads: 2}}
  decoder: {{embed_dim: 32, ffn_embed_dim: 32, layers: 1, attention_heads: 2}}
""",
        encoding="utf-8",
    )
    done = run(command("fairseq-hydra-train"), "--config-dir", config, "--config-name", "tiny", cwd=tmp_path)
    assert_trained_like(done, tmp_path / "save", uninterrupted)
    # it takes more than half
    assert ": 4 are left. criterion.smoothing_warmup_steps=1 would be the paper's share" in done.stdout
    assert "checkpoint.best_checkpoint_metric chooses another" in done.stdout


@pytest.mark.parametrize(
    ("option", "setting"),
    [
        ("a lower --lr,", "a lower optimization.lr,"),
        ("halve --max-tokens", "halve dataset.max_tokens"),
        ("--fp16", "common.fp16"),
        ("--find-unused-parameters", "distributed_training.find_unused_parameters"),
        ("more --warmup-updates", "more lr_scheduler.warmup_updates"),
        ("--ignore-prefix-size 12 must", "criterion.ignore_prefix_size=12 must"),
        ("with --criterion ce", "with --criterion ce"),
    ],
)
def test_a_message_names_options_as_settings_where_hydra_composes(monkeypatch, option, setting):
    assert as_written(option) == option
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    assert as_written(option) == setting


def assert_trained_like(done, folder, uninterrupted):
    """By fairseq-hydra-train."""
    expected_folder, expected = uninterrupted
    assert done.returncode == 0, done.stdout[-3000:]
    lines = (re.sub(r"^\[(.*?)\]\[(.*?)\]\[(.*?)\] - ", r"\1 | \3 | \2 | ", line) for line in done.stdout.splitlines())
    records = inner("\n".join(lines))
    assert_warmup_is_exact(records)
    assert [records[update]["loss"] for update in records] == [expected[update]["loss"] for update in expected]
    assert_same_parameters(parameters(folder), parameters(expected_folder))


def test_every_criterion_is_a_name_for_hydra(tmp_path):
    """On the command line, and in the defaults of a file, whose name may have a dot: Hydra adds the extension."""
    names = sorted(name for name, owner in CRITERION_REGISTRY.items() if issubclass(owner, RegularizedCriterion))
    (tmp_path / "labo_tau1.15.yaml").write_text("defaults:\n  - _self_\n  - criterion: labo\n", encoding="utf-8")
    jobs = [job(tmp_path, name, "hydra-train", (f"criterion={name}", "--cfg", "job")) for name in names]
    in_file = ("--config-dir", tmp_path, "--config-name", "labo_tau1.15", "--cfg", "job")
    jobs.append(job(tmp_path, "file", "hydra-train", in_file))
    jobs.append(job(tmp_path, "fairseqs", "hydra-train", ("criterion=cross_entropy", "--cfg", "job")))
    jobs.append(job(tmp_path, "none", "hydra-train", ("criterion=unknown", "--cfg", "job")))
    assert fork(jobs) == [0] * (len(names) + 2) + [1]
    for name in names:
        log = (tmp_path / f"{name}.log").read_text(encoding="utf-8")
        composed = yaml.safe_load(log[re.search(r"^(common|_name):", log, re.MULTILINE).start() :])["criterion"]
        assert composed["_name"] == name
        assert composed["smoothing_warmup_steps"] == (5000 if name.startswith("labo") else 0)
        assert composed["rdrop_alpha"] == (5 if name == "rdrop" else 0)
    assert "_name: labo" in (tmp_path / "file.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("model", [TRANSFORMER, LSTM, CONVOLUTIONAL], ids=["transformer", "lstm", "convolutional"])
def test_every_model_that_gives_logits_trains_and_translates(data, tmp_path, model):
    options = ("--criterion", "labo_label_smoothed_cross_entropy", "--smoothing-warmup-steps", "0", "--report-accuracy")
    last = train(data, tmp_path, *options, "--save-interval-updates", "2", model=model, updates=3)[3]
    assert {"loss", "nll_loss", "ppl", "alpha", "entropy", "p_star", "accuracy"} <= last.keys()
    assert 0.5 <= last["alpha"] <= 1
    assert 0 <= last["p_star"] <= 1
    assert last["entropy"] > 0
    checkpoint = tmp_path / "checkpoint_last.pt"
    done = run(
        *(command("fairseq-generate"), data.binarized, "--user-dir", USER_DIR, "--path", checkpoint),
        *("--beam", "5", "--max-len-b", "20", "--gen-subset", "valid"),
        *("--required-batch-size-multiple", "1"),
    )
    assert done.returncode == 0, done.stdout[-3000:]
    lines = data.raw("valid", "en").read_text(encoding="utf-8").splitlines()
    assert len(re.findall(r"^H-\d+\t", done.stdout, re.MULTILINE)) == len(lines)


def test_adaptive_softmax_is_refused_in_one_line(data, tmp_path):
    options = ("--criterion", "labo", "--smoothing-warmup-steps", "0", "--adaptive-softmax-cutoff", "50,100")
    model = [option for option in TRANSFORMER if option != "--share-all-embeddings"]
    done = run(*train_command(data, tmp_path, *options, model=model))
    assert done.returncode != 0
    # an old fairseq dies loudly after it, of a thread that reads data
    (line,) = [line for line in done.stdout.splitlines() if "adaptive softmax" in line and " | " not in line]
    assert line.startswith("labo: this model has an adaptive softmax")
    assert "Traceback" not in done.stdout


def test_option_out_of_range_is_refused_in_one_line(data, tmp_path):
    done = run(*train_command(data, tmp_path, *LABO, "--tau", "-1"))
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == "labo: --tau must be a finite number > 0, got -1.0"
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("options", "updates", "warmup", "expected"),
    [
        ((), 6, 6, "takes 6 of the 6 updates of this training: it is label smoothing and labo never begins"),
        ((), 6, 5, "takes 5 of the 6 updates of this training: 1 are left"),
        ((), 6, 3, None),
        (("--max-epoch", "1", "--update-freq", "3"), 1000, 1000, r"takes 1,000 of the {per_epoch} updates of this"),
    ],
)
def test_it_says_at_the_start_where_a_training_is_too_short_for_its_warmup(
    data, tmp_path, options, updates, warmup, expected
):
    options = ("--criterion", "labo", "--smoothing-warmup-steps", warmup, "--no-save", "--disable-validation", *options)
    log = run(*train_command(data, tmp_path, *options, updates=updates)).stdout
    said = re.findall(r"labo: the smoothing warm-up (takes .*)", log)
    made = max(inner(log))
    if expected is None:
        assert said == []
    else:
        (line,) = said
        assert re.match(expected.format(per_epoch=made), line)
        assert log.index(line) < log.index("| train_inner |")
        assert re.search(rf"--smoothing-warmup-steps {max(1, round(0.03 * made))} ", line)


@pytest.mark.parametrize("limit", ["--max-update", "--max-epoch"])
def test_a_finished_training_that_is_repeated_has_no_warmup_to_speak_of(data, tmp_path, limit):
    options = ("--criterion", "labo", "--smoothing-warmup-steps", 900, "--disable-validation")
    shown = []
    for last in (1, 1, 2):
        length = ("--max-update", last) if limit == "--max-update" else ("--max-update", 1000, "--max-epoch", last)
        log = run(*train_command(data, tmp_path, *options, *length)).stdout
        assert "done training" in log
        shown.append(([int(number) for number in re.findall(r"takes 900 of the (\d+) updates", log)], inner(log)))
    (first, made), (repeated, none), (resumed, more) = shown
    assert (first, repeated, none) == ([max(made)], [], {})
    assert resumed == [max(more)], "those before it resumed count too"

"""Real fairseq commands on small data, as a user would type them."""

import csv
import io
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from fork_server import COMMANDS, ForkServer

from labo_fairseq.checkpoints import load_checkpoint
from labo_fairseq.reporting.training_log import parse_record
from labo_fairseq.subprocesses import USER_DIR, free_port

LABO = ("--criterion", "labo", "--smoothing-warmup-steps", "6")
TRANSFORMER = (
    *("--arch", "transformer", "--share-all-embeddings", "--dropout", "0.1"),
    *("--encoder-layers", "1", "--encoder-embed-dim", "32", "--encoder-ffn-embed-dim", "32"),
    *("--decoder-layers", "1", "--decoder-embed-dim", "32", "--decoder-ffn-embed-dim", "32"),
    *("--encoder-attention-heads", "2", "--decoder-attention-heads", "2"),
)
LSTM = (
    *("--arch", "lstm", "--dropout", "0.1", "--encoder-embed-dim", "32", "--encoder-hidden-size", "32"),
    *("--decoder-embed-dim", "32", "--decoder-hidden-size", "32", "--decoder-out-embed-dim", "32"),
)
CONVOLUTIONAL = (
    *("--arch", "fconv", "--dropout", "0.1", "--encoder-embed-dim", "32", "--decoder-embed-dim", "32"),
    *("--encoder-layers", "[(32, 3)] * 2", "--decoder-layers", "[(32, 3)] * 2", "--decoder-out-embed-dim", "32"),
)
OPTIMIZATION = (
    *("--optimizer", "adam", "--lr", "1e-3", "--max-tokens", "400", "--seed", "3", "--num-workers", "0"),
    *("--distributed-world-size", "1", "--log-format", "json", "--log-interval", "1"),
)
# What fairseq keeps beside the parameters: a buffer of uninitialized memory, there for its dtype, and copies of
# weights for fast inference, which 0.12.2 makes whenever it loads a checkpoint.
_NOT_TRAINED = re.compile(r"_float_tensor$|\d\.(in_proj|out_proj|fc1|fc2)_(weight|bias)$")


def command(name):
    """A command of the environment that the tests run in."""
    return str(Path(sys.executable).with_name(name))


_server = ForkServer()
_FORKED = {command(name) for name in COMMANDS}


def run(*arguments, env=None, cwd=None, **kwargs):
    """The finished process, its output as text; fairseq's commands come from the fork server where they can."""
    arguments = [str(argument) for argument in arguments]
    env = {**os.environ, **(env or {})}
    if arguments[0] in _FORKED and not kwargs and _server.serves(env):
        return subprocess.CompletedProcess(arguments, *_server.run(arguments, env, str(cwd or Path.cwd())))
    return subprocess.run(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", env=env, cwd=cwd, **kwargs
    )


def finished(folder, method="labo"):
    """The run of a method below the folder of the fixture ``multi30k``."""
    return folder / "multi30k" / "de-en" / f"{method}-seed1-smoke"


def read_csv(path):
    """Its rows, each by the names of the columns."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def train_command(data, folder, *options, updates=10, model=TRANSFORMER):
    return [
        *(command("fairseq-train"), str(data.binarized), "--user-dir", USER_DIR, "--save-dir", str(folder)),
        *(*model, *OPTIMIZATION, "--max-update", str(updates), "--no-epoch-checkpoints", *options),
    ]


def train(data, folder, *options, **kwargs):
    """``fairseq-train``, which must succeed: its ``train_inner`` records, by update."""
    done = run(*train_command(data, folder, *options, **kwargs))
    assert done.returncode == 0, done.stdout[-3000:]
    return inner(done.stdout)


def train_here(data, folder, *options, updates=1000, **kwargs):
    """What ``fairseq-train`` does, in this process, which has paid for importing fairseq: the lines of its log."""
    from fairseq_cli.train import cli_main

    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)s | %(name)s | %(message)s"))
    root, command_line = logging.getLogger(), sys.argv
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    sys.argv = [str(argument) for argument in train_command(data, folder, *options, updates=updates, **kwargs)]
    try:
        cli_main()
    finally:
        sys.argv = command_line
        root.removeHandler(handler)
        root.setLevel(level)
    return lines.getvalue()


def inner(log):
    """``{update: statistics}`` of every update that a log tells of."""
    parsed = (parse_record(line) for line in log.splitlines())
    return {int(record[1]["num_updates"]): record[1] for record in parsed if record and record[0] == "train_inner"}


def validations(log, subset="valid"):
    """The statistics of the validations on a set, in their order."""
    parsed = (parse_record(line) for line in log.splitlines())
    records = (record[1] for record in parsed if record and record[0] == subset)
    return [{re.sub(f"^{subset}_", "", name): value for name, value in record.items()} for record in records]


def parameters(folder):
    """The trained parameters, read as the plugin reads them."""
    return trained_parameters(load_checkpoint(Path(folder) / "checkpoint_last.pt")["model"])


def trained_parameters(model):
    """The parameters in a model's state, without what fairseq keeps beside them."""
    return {name: value for name, value in model.items() if not _NOT_TRAINED.search(name)}


def assert_same_parameters(one, other, **tolerance):
    """Equal to the last bit, or within ``rtol`` and ``atol``."""
    assert one.keys() == other.keys()
    for name in one:
        if tolerance:
            torch.testing.assert_close(one[name], other[name], msg=name, **tolerance)
        else:
            assert torch.equal(one[name], other[name]), name


def two_workers(arguments):
    """The same command as two processes that talk over gloo, as one starts them without GPUs."""
    options = (
        *("--cpu", "--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp", "--distributed-no-spawn"),
        *("--distributed-init-method", f"tcp://127.0.0.1:{free_port()}", "--distributed-world-size", "2"),
    )
    return side_by_side([*arguments, *options, "--distributed-rank", str(rank)] for rank in range(2))


def side_by_side(commands):
    """The records of the first of several processes that must all succeed."""
    workers = [
        subprocess.Popen(
            [str(argument) for argument in arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for arguments in commands
    ]
    logs = [worker.communicate()[0] for worker in workers]
    for worker, log in zip(workers, logs):
        assert worker.returncode == 0, log[-3000:]
    return inner(logs[0])


def kill_in_training(arguments, log, sign):
    """Start a command, kill it as soon as ``sign`` stands in the log of its training, which must not outlive it."""
    with subprocess.Popen(
        [str(argument) for argument in arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.time() + 300
        while not (log.exists() and sign in log.read_text(encoding="utf-8")):
            assert process.poll() is None
            assert time.time() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    time.sleep(2)
    size = log.stat().st_size
    time.sleep(2)
    assert log.stat().st_size == size, "the training outlived the command"

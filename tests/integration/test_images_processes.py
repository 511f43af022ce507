"""Several processes that train on images together: they compute what one process does."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_images_training import DATA, Tiny, labo, trainer, without_time
from torch import nn
from torch.multiprocessing import spawn

from labo_fairseq.experiments.image_result import load_image_run
from labo_fairseq.experiments.image_run import parse_message, run_images
from labo_fairseq.images.methods import method_names
from labo_fairseq.images.training import TrainingRecipe
from labo_fairseq.images.workers import ALONE, Workers
from labo_fairseq.subprocesses import free_port

Image = pytest.importorskip("PIL.Image")

PROCESSES = 3
#: batches of 10, 10 and 2: the last one leaves a process without an image
FEW = DATA._replace(train=DATA.train.subset(torch.arange(22)), valid=DATA.valid.subset(torch.arange(10)))
pytestmark = pytest.mark.once

TASKS = {
    **{name: (name, TrainingRecipe(epochs=2, batch=10, lr=0.05, milestones=(0.5,))) for name in method_names()},
    "mixup": ("labo", TrainingRecipe(epochs=2, batch=10, lr=0.05, mixup=0.5)),
    "cutmix": ("ls", TrainingRecipe(epochs=2, batch=10, lr=0.05, cutmix=0.5)),
}


class Exact(nn.Module):
    """Computes in float64, so that rounding does not hide a difference; without dropout."""

    def __init__(self):
        super().__init__()
        self.inner = Tiny().double()
        self.inner.layers[5].p = 0.0

    def forward(self, images):
        return self.inner(images.double())


def train_all(workers):
    """Name of a task → records of its epochs, weights of the chosen epoch, state of the method."""
    outcomes = {}
    for name, (method, recipe) in TASKS.items():
        torch.manual_seed(1)
        options = {"data": FEW, "build": Exact, "workers": workers, "teacher": Exact()}
        made = trainer(method, recipe, **options)
        outcome = made.train()
        outcomes[name] = without_time(outcome.history), outcome.weights, made.method.state_dict()
    return outcomes


def train_in_process(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=PROCESSES)
    torch.save(train_all(Workers(rank, PROCESSES)), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What one process ends with, and what each of several does."""
    folder = tmp_path_factory.mktemp("processes")
    spawn(train_in_process, (folder,), PROCESSES)
    return train_all(ALONE), [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize("task", TASKS)
def test_several_processes_end_with_what_one_does(outcomes, task):
    alone, together = outcomes
    history, weights, method = alone[task]
    for theirs in together:
        assert theirs[task][0] == [pytest.approx(record, rel=1e-5) for record in history]
        torch.testing.assert_close(theirs[task][1], weights, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(theirs[task][2], method, rtol=1e-5, atol=1e-7)
    assert len({str(outcome[task][0]) for outcome in together}) == 1


@pytest.fixture
def folders(tmp_path):
    """Light and dark noise, with one file that is no image, and that file's content as it should be."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 6), ("test", 6)):
        for label, name in enumerate(("dark", "light")):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 160, (20, 24, 3), dtype=np.uint8) + np.uint8(90 * label)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number:02}.png")
    damaged = tmp_path / "train" / "light" / "07.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:200])
    return tmp_path, damaged, whole


def test_the_command_refuses_a_bad_image_and_starts_processes_without_it(folders, tmp_path):
    """Before anything is trained or written; with the image back, the run ends as that of one process alone."""
    data, damaged, whole = folders
    settings = ["network.width=4", "data.size=16", "data.resize=18", "training.batch=8", "training.epochs=2"]
    settings += ["training.lr=0.001", "training.save_every=1"]
    arguments = (
        "run",
        "folders",
        "resnet18",
        "--criterion",
        "labo",
        "--seed",
        "3",
        "--archive-dir",
        data,
        *settings,
    )
    environment = {"NUM_GPUS": "0", "NUM_CPU_WORKERS": "2"}
    place = tmp_path / "runs" / "folders" / "resnet18" / "labo-seed3"
    failed = labo(*arguments, cwd=tmp_path, env=environment)
    assert failed.returncode == 1
    reason = f"labo-fairseq run: {damaged} cannot be read as an image (image file is truncated"
    last = failed.stdout.strip().splitlines()[-1]
    assert last.startswith(reason), failed.stdout
    assert "Traceback" not in failed.stdout
    assert not place.exists()
    damaged.write_bytes(whole)
    done = labo(*arguments, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "2 × CPU" in done.stdout
    alone, expected = run_images(tmp_path / "alone", "folders", "resnet18", "labo", 3, settings, archive_dir=data)
    result = json.loads((place / "result.json").read_text("utf-8"))
    assert result["evaluation"]["epoch"] == expected.evaluation.epoch
    for split in ("valid", "test"):
        for one, other in zip(load_image_run(place).logits(split), alone.logits(split)):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    logs = [
        [json.loads(line) for line in run.log.read_text("utf-8").splitlines()] for run in (load_image_run(place), alone)
    ]
    assert without_time(logs[0]) == [pytest.approx(record, rel=1e-3) for record in without_time(logs[1])]
    assert not [path for path in place.rglob("*") if ".part" in path.name]


# Two workers share one pipe, unbuffered: one has begun a line when the other says, in whole lines, why it failed.
FAILING = """
import sys
from labo_fairseq.experiments.image_worker import main
class Interrupted:
    def write(self, text):
        sys.__stdout__.write(text + "another worker ")
    def flush(self):
        sys.__stdout__.flush()
sys.__stdout__.write("another worker ")
sys.stdout = Interrupted()
main()
"""


def test_a_worker_is_heard_through_what_others_say(tmp_path):
    task = {"dataset": "none", "archive_dir": None, "config": {}, "gpus": False}
    meeting = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    arguments = [sys.executable, "-u", "-c", FAILING, str(tmp_path), json.dumps(task)]
    worker = subprocess.run(arguments, env={**os.environ, **meeting}, stdout=subprocess.PIPE, text=True)
    assert worker.returncode == 1
    messages = [message for message in map(parse_message, worker.stdout.splitlines()) if message]
    assert len(messages) == 1
    assert "unknown data set 'none'" in messages[0]["failed"]


@pytest.mark.parametrize(
    ("environment", "options", "message"),
    [
        ({"NUM_CPU_WORKERS": "9"}, ("training.batch=8",), "9 processes cannot share a batch of 8: use fewer"),
        (
            {"TORCHELASTIC_RUN_ID": "1"},
            (),
            "leave torchrun out: NUM_GPUS or NUM_CPU_WORKERS says how many processes are started",
        ),
        ({}, ("--nodes", "2", "--master", "a:1"), "--nodes does not go with images: leave it out"),
        ({}, ("--lowercase",), "--lowercase does not go with images: leave it out"),
    ],
)
def test_processes_that_cannot_be_had_are_refused(environment, options, message, tmp_path, monkeypatch, capsys):
    from labo_fairseq.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUM_GPUS", "0")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["run", "cifar10", "resnet18", *options]) == 1
    assert capsys.readouterr().err.strip() == f"labo-fairseq run: {message}"
    assert not list(tmp_path.iterdir())

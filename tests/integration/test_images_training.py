"""Training on images: the recipe, exact resume, the choice of the epoch, refusals, as a user would start it."""

import copy
import json
import math
import os
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from fairseq_runs import command, run
from torch import nn

from labo_fairseq.errors import UserError
from labo_fairseq.experiments.image_report import hard_images, significance
from labo_fairseq.experiments.image_result import ImageRun, is_image_run, load_image_run
from labo_fairseq.experiments.image_run import load_network, measure
from labo_fairseq.experiments.image_scores import IMAGE_METRICS
from labo_fairseq.images import is_dataset
from labo_fairseq.images.datasets import ImageArray, ImageData, load_declaration
from labo_fairseq.images.methods import build_method, method_names
from labo_fairseq.images.randomness import generator_at
from labo_fairseq.images.settings import compose, recipe_of
from labo_fairseq.images.training import (
    Pixels,
    Trainer,
    TrainingRecipe,
    _ClassIndex,
    accuracy_and_nll,
    cut_mix,
    mix_up,
    updates_of_epoch,
)
from labo_fairseq.images.transforms import Augmentation
from labo_fairseq.images.workers import ALONE

pytestmark = pytest.mark.once

PIXELS = Pixels(Augmentation(padding=1, rotation=10.0), (0.5,), (0.25,))
RECIPE = TrainingRecipe(epochs=3, batch=10, lr=0.05, milestones=(0.5,))


class Tiny(nn.Module):
    """With batch normalization, and dropout, which draws random numbers of its own."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
            *(nn.Dropout(0.2), nn.Linear(16, 3)),
        )

    def forward(self, images):
        return self.layers(images)


def images(count, *place):
    """Stripes of three directions in noise: to be learned in a few updates."""
    labels = torch.arange(count) % 3
    noise = torch.randint(120, (count, 1, 8, 8), generator=generator_at("noise", *place))
    stripes = torch.zeros(3, 8, 8, dtype=torch.long)
    stripes[0, ::2], stripes[1, :, ::2], stripes[2] = 130, 130, 130 * torch.eye(8, dtype=torch.long)
    return ImageArray((noise + stripes[labels][:, None]).to(torch.uint8), labels)


DATA = ImageData(images(45, 1), images(30, 2), images(30, 3), ("a", "b", "c"), {})


def trainer(
    method="ce", recipe=RECIPE, checkpoint=None, data=DATA, seed=1, teacher=None, build=Tiny, workers=ALONE, **options
):
    return Trainer(
        data,
        build,
        lambda context: build_method(method, context, options),
        recipe,
        PIXELS,
        seed,
        checkpoint,
        teacher,
        torch.device("cpu"),
        workers,
    )


def without_time(history):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


class StopError(Exception):
    pass


@pytest.mark.parametrize("method", method_names())
def test_a_training_that_is_resumed_anywhere_is_the_same_to_the_last_bit(method, tmp_path):
    teacher = Tiny()
    options = {"checkpoint": tmp_path / "whole.pt", "teacher": teacher}
    whole = trainer(method, **options)
    expected = whole.train()
    assert whole.update == 15
    recipe = copy.copy(RECIPE)
    object.__setattr__(recipe, "save_every", 1)
    for stop in (1, 5, 7, 14):  # in an epoch, at its end, before the last update
        path = tmp_path / f"{stop}.pt"
        killed = trainer(method, recipe, path, teacher=teacher)
        step = killed._step

        def limited(batch, killed=killed, stop=stop, step=step):
            if killed.update == stop:
                raise StopError
            step(batch)

        killed._step = limited
        with pytest.raises(StopError):
            killed.train()
        resumed = trainer(method, recipe, path, teacher=teacher)
        assert resumed.update == stop
        outcome = resumed.train()
        assert without_time(outcome.history) == without_time(expected.history)
        assert outcome.epoch == expected.epoch
        assert_equal(outcome.weights, expected.weights)
        assert_equal(resumed.network.state_dict(), whole.network.state_dict())
        assert_equal(resumed.method.state_dict(), whole.method.state_dict())
    # a finished training is not trained on
    again = trainer(method, **options).train()
    assert without_time(again.history) == without_time(expected.history)
    assert_equal(again.weights, expected.weights)


def test_seeds_differ_in_their_weights_and_in_the_order_of_the_images():
    one, other = trainer(seed=1), trainer(seed=2)
    assert not torch.equal(one.network.layers[0].weight, other.network.layers[0].weight)
    first, second = (next(iter(one_of._load_ahead(0, 0))).indices for one_of in (one, other))
    assert not torch.equal(first, second)


def test_a_network_learns_and_the_best_epoch_on_validation_images_is_kept():
    recipe = TrainingRecipe(epochs=12, batch=15, lr=0.2)
    trained = trainer(recipe=recipe)
    outcome = trained.train()
    accuracies = [record["valid_accuracy"] for record in outcome.history]
    assert max(accuracies) > 80
    ranks = [(record["valid_accuracy"], -record["valid_nll"]) for record in outcome.history]
    assert outcome.epoch == 1 + ranks.index(max(ranks))
    network = Tiny()
    network.load_state_dict(outcome.weights)
    trained.network.load_state_dict(outcome.weights)
    from labo_fairseq.images.training import predict

    logits = predict(network, DATA.valid, PIXELS, torch.device("cpu"))
    assert accuracy_and_nll(logits, DATA.valid.labels) == (max(ranks)[0], -max(ranks)[1])


def test_an_epoch_whose_validation_nll_is_no_number_is_the_worst_of_its_accuracy(monkeypatch):
    results = iter([(50.0, math.nan), (50.0, 1.0), (50.0, 0.5), (40.0, 0.1)])
    monkeypatch.setattr("labo_fairseq.images.training.accuracy_and_nll", lambda *_: next(results))
    assert trainer(recipe=TrainingRecipe(epochs=4, batch=15, lr=0.01)).train().epoch == 3


def test_without_validation_images_the_last_epoch_counts():
    outcome = trainer(data=DATA._replace(valid=None)).train()
    assert outcome.epoch == RECIPE.epochs
    assert "valid_accuracy" not in outcome.history[0]


def test_every_image_is_seen_once_an_epoch():
    made = trainer()
    for epoch in range(2):
        batches = list(made._load_ahead(epoch, 0))
        assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == list(range(45))
        assert [batch.update for batch in batches] == list(range(5 * epoch, 5 * epoch + 5))
    assert updates_of_epoch(45, 10) == 5
    assert updates_of_epoch(41, 10) == 4  # batch normalization needs two images
    assert updates_of_epoch(1, 10) == 0
    with pytest.raises(UserError, match="1 training images are too few"):
        trainer(data=DATA._replace(train=images(1)))


def test_the_rate_of_the_papers_recipes():
    cifar, imagenet = TrainingRecipe(), recipe_of(compose(load_declaration("imagenet"), "resnet50", "labo", 1))
    assert [cifar.rate(epoch) for epoch in (0, 59)] == [0.1, 0.1]
    for epoch, factor in ((60, 5), (119, 5), (120, 25), (160, 125), (199, 125)):
        assert cifar.rate(epoch) == pytest.approx(0.1 / factor)
    for epoch, factor in ((29, 1), (30, 10), (59, 10), (60, 100), (79, 100), (80, 1000), (89, 1000)):
        assert imagenet.rate(epoch) == pytest.approx(0.1 / factor)
    assert (imagenet.epochs, imagenet.batch, imagenet.weight_decay) == (90, 256, 1e-4)
    assert (cifar.epochs, cifar.batch, cifar.weight_decay, cifar.momentum) == (200, 128, 5e-4, 0.9)


def test_the_updates_are_those_of_sgd_with_momentum_and_weight_decay():
    recipe = TrainingRecipe(epochs=1, batch=15, lr=0.1, milestones=())
    made = trainer(recipe=recipe)
    made.network.layers[5].p = 0.0
    network = copy.deepcopy(made.network).train()
    velocity = [torch.zeros_like(weight) for weight in network.parameters()]
    for batch in list(made._load_ahead(0, 0)):
        network.zero_grad()
        nn.functional.cross_entropy(network(batch.images), batch.target).backward()
        with torch.no_grad():
            for weight, speed in zip(network.parameters(), velocity):
                speed.mul_(0.9).add_(weight.grad + 5e-4 * weight)
                weight.sub_(0.1 * speed)
    made.train()
    for mine, literal in zip(made.network.parameters(), network.parameters()):
        torch.testing.assert_close(mine, literal)


def test_the_table_of_kr_ls_has_the_networks_rate_and_nothing_else():
    made = trainer("kr_ls")
    network, table = made.optimizer.param_groups
    made.train()
    assert table["lr"] == network["lr"] == pytest.approx(0.05 * 0.2)
    assert (table["momentum"], table["weight_decay"]) == (0.0, 0.0)
    assert (network["momentum"], network["weight_decay"]) == (0.9, 5e-4)
    assert made.method.table.abs().sum() > 0


def test_partners_are_other_images_of_the_same_class():
    labels = torch.tensor([2, 0, 1, 0, 2, 2, 0, 1])
    index = _ClassIndex(labels)
    target = torch.arange(3).repeat(500)
    drawn = index.draw(target, generator_at(0))
    assert torch.equal(labels[drawn], target)
    counts = drawn.bincount(minlength=8)
    assert counts.min() > 120  # every image of every class, evenly
    batch = next(iter(trainer("cs_kd")._load_ahead(0, 0)))
    assert batch.partner.shape == batch.images.shape
    assert not torch.equal(batch.partner, batch.images)


def test_mixed_images_have_the_shares_of_their_labels():
    pixels = torch.rand(6, 1, 8, 8, generator=generator_at(0))
    target = torch.arange(6)
    mixed, other, share = mix_up(pixels, target, 1.0, generator_at(1))
    assert 0 < share[0] < 1
    torch.testing.assert_close(mixed, share[0] * pixels + (1 - share[0]) * pixels[other])
    seen = set()
    for number in range(60):
        mixed, other, share = cut_mix(pixels, target, 1.0, generator_at(number))
        from_first = torch.isclose(mixed, pixels).flatten(1).all(0)
        elsewhere = torch.isclose(mixed, pixels[other]).flatten(1).all(0)
        assert (from_first | elsewhere).all()
        if not torch.equal(other, target):
            assert float(share[0]) == pytest.approx(float(from_first.double().mean()), abs=0.02)
        seen.add(round(float(share[0]), 2))
    assert len(seen) > 15
    mixing = TrainingRecipe(epochs=1, batch=10, mixup=0.5)
    assert torch.isfinite(torch.tensor(trainer("labo", mixing).train().history[0]["train_loss"]))
    with pytest.raises(UserError, match=r"kr_ls cannot be trained with mixed images, .*: leave training\.mixup"):
        trainer("kr_ls", mixing)


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"channels_last": True}])
def test_other_precisions_and_formats_train(options):
    whole = trainer(recipe=TrainingRecipe(epochs=2, batch=15, lr=0.05)).train()
    other = trainer(recipe=TrainingRecipe(epochs=2, batch=15, lr=0.05, **options)).train()
    assert other.history[-1]["train_loss"] == pytest.approx(whole.history[-1]["train_loss"], abs=0.05)
    assert all(value.dtype in (torch.float32, torch.int64) for value in other.weights.values())


def test_a_loss_that_is_no_number_stops_the_training(tmp_path):
    path = tmp_path / "c.pt"
    with pytest.raises(UserError, match=r"the loss is (nan|inf) in update \d+ \(epoch \d\): lower training\.lr"):
        trainer(recipe=TrainingRecipe(epochs=3, batch=15, lr=1e30), checkpoint=path).train()


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    trainer(checkpoint=path).train()
    content = path.read_bytes()
    for wrong in (b"", b"PK no checkpoint", content[: len(content) // 2]):
        path.write_bytes(wrong)
        with pytest.raises(UserError, match=r"c\.pt cannot be read as a checkpoint"):
            trainer(checkpoint=path)
    torch.save({"weights": {}}, path)
    with pytest.raises(UserError, match="is no checkpoint of this training"):
        trainer(checkpoint=path)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"batch": 1}, "batch"),
        ({"lr": 0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"momentum": 2}, "momentum"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"milestones": (2,)}, "milestones"),
        ({"milestones": 0.3}, "milestones"),
        ({"precision": "fp8"}, "precision"),
        ({"channels_last": 1}, "channels_last"),
        ({"mixup": 1.0, "cutmix": 1.0}, "mixup"),
        ({"save_every": -1}, "save_every"),
    ],
)
def test_a_recipe_out_of_range_is_refused(options, name):
    with pytest.raises(ValueError, match=name):
        TrainingRecipe(**options)


def test_scores_are_those_of_their_definitions():
    logits = 2 * torch.randn(400, 10, generator=generator_at(0))
    labels = logits.argmax(-1)
    labels[::3] = (labels[::3] + 1) % 10
    method = trainer().method
    scores = {score.name: score.value for score in measure(logits, labels, 1.7, method)}
    assert scores["accuracy"] == pytest.approx(100 * 266 / 400)
    for kind, temperature in (("", 1.0), (" (temperature)", 1.7)):
        p = (logits.double() / temperature).softmax(-1)
        assert scores[f"NLL{kind}"] == pytest.approx(float(-p[range(400), labels].log().mean()))
        confidence, correct = p.max(-1).values.numpy(), (p.argmax(-1) == labels).numpy()
        bins = np.ceil(confidence * 15)
        ece = sum(
            abs(correct[bins == number].mean() - confidence[bins == number].mean()) * (bins == number).mean()
            for number in set(bins)
        )
        assert scores[f"ECE{kind}"] == pytest.approx(100 * ece)


@pytest.mark.parametrize("name", ["ce", "ls", "cp", "fl", "labo"])
def test_the_posterior_recovers_what_the_objective_is_minimal_for(name):
    """The logits that minimize the mean loss over a distribution y give y back."""
    truth = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    method = trainer(name, **({"warmup": 0.0} if name == "labo" else {})).method
    z = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14)
    batch = next(iter(trainer()._load_ahead(2, 0)))._replace(target=torch.arange(4))

    def loss():
        optimizer.zero_grad()
        value = (truth * method.loss(z[:1].expand(4, -1), torch.arange(4), batch)).sum()
        value.backward()
        return value

    optimizer.step(loss)
    recovered = method.log_posterior(z[:1].detach()).exp()[0]
    torch.testing.assert_close(recovered, truth, atol=5e-3, rtol=0)  # the answer holds a hundredth of p
    assert trainer("ols").method.log_posterior(z) is None


def labo(*arguments, cwd, env=None):
    return run(command("labo-fairseq"), *arguments, cwd=cwd, env={"OMP_NUM_THREADS": "1", **(env or {})})


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The folder of a smoke run of LABO on the digits, and what was printed."""
    folder = tmp_path_factory.mktemp("images")
    done = labo("run", "digits", "resnet18", "--smoke", cwd=folder)
    if "pip could not download" in done.stdout:
        pytest.skip("no digits: the package index cannot be reached")
    assert done.returncode == 0, done.stdout[-2000:]
    return folder, done.stdout


def test_a_run_leaves_its_result_its_curves_and_its_predictions(smoke):
    folder, printed = smoke
    place = folder / "runs" / "digits" / "resnet18" / "labo-seed1-smoke"
    result = json.loads((place / "result.json").read_text("utf-8"))
    assert result["settings"]["config"]["criterion"]["name"] == "labo"
    assert result["training"]["images"] == {"train": 200, "valid": 100, "test": 100}
    assert "images            200 training, 100 validation, 100 test; 10 classes\n" in printed
    assert result["training"]["seconds_per_epoch"] > 0
    assert result["training"]["peak_memory_mib"] > 50
    scores = {score["name"]: score for score in result["evaluation"]["tests"]["test"]}
    assert {"accuracy", "NLL", "ECE", "NLL (posterior)", "NLL (temperature)", "ECE (temperature)"} <= set(scores)
    assert scores["accuracy"]["signature"].startswith("unit:%|n:100|v:")
    image_run = load_image_run(place)
    logits, labels = image_run.logits("test")
    assert logits.shape == (100, 10)
    assert accuracy_and_nll(logits, labels) == (scores["accuracy"]["value"], scores["NLL"]["value"])
    history = [json.loads(line) for line in image_run.log.read_text("utf-8").splitlines()]
    assert [record["epoch"] for record in history] == [1, 2]
    ranks = [(record["valid_accuracy"], -record["valid_nll"]) for record in history]
    assert result["evaluation"]["epoch"] == 1 + ranks.index(max(ranks))
    network, dataset = load_network(image_run.checkpoint)
    assert dataset == "digits"
    assert not network.training
    assert "accuracy" in printed
    assert "epoch 2: training loss" in printed


def test_a_finished_run_is_not_repeated_and_another_one_is_refused(smoke):
    folder, _ = smoke
    place = folder / "runs" / "digits" / "resnet18" / "labo-seed1-smoke"
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file() and path.name != ".lock"}
    again = labo("run", "digits", "resnet18", "--smoke", cwd=folder)
    assert again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    other = labo("run", "digits", "resnet18", "--smoke", "criterion.tau=2", cwd=folder)
    assert other.returncode == 1
    assert "holds a run with another config.criterion.tau: choose another folder" in other.stdout
    assert len(other.stdout.strip().splitlines()) == 1


def test_a_run_teaches_another(smoke):
    folder, _ = smoke
    teacher = "runs/digits/resnet18/labo-seed1-smoke/checkpoints/checkpoint_best.pt"
    arguments = ("run", "digits", "mobilenetv2", "--criterion", "kd", "--smoke", "training.epochs=1")
    done = labo(*arguments, f"criterion.teacher_path={teacher}", cwd=folder)
    assert done.returncode == 0, done.stdout[-2000:]
    result = json.loads((folder / "runs/digits/mobilenetv2/kd-seed1-smoke/result.json").read_text("utf-8"))
    told = result["settings"]["config"]["criterion"]["teacher_path"]
    assert told == "../../resnet18/labo-seed1-smoke/checkpoints/checkpoint_best.pt"
    for wrong, message in [
        ((), "distillation needs a teacher: criterion.teacher_path="),
        (("criterion.teacher_path=absent.pt",), "no teacher absent.pt: train it first"),
    ]:
        refused = labo(*arguments, *wrong, "--name", "other", cwd=folder)
        assert refused.returncode == 1
        assert message in refused.stdout
        assert not (folder / "runs/digits/mobilenetv2/other").exists()


def test_killed_and_resumed_through_the_command_line(smoke, tmp_path):
    """kill -9 in the middle of an epoch, then a full disk: the result is that of a run that was left alone."""
    settings = ("training.epochs=3", "training.batch=10", "training.save_every=3")
    arguments = ("run", "digits", "resnet18", "--criterion", "beta_ls", "--smoke", *settings)
    whole = labo(*arguments, cwd=tmp_path, env={"HOME": os.environ["HOME"]})
    assert whole.returncode == 0, whole.stdout[-2000:]
    killed = tmp_path / "killed"
    killed.mkdir()
    last = killed / "runs/digits/resnet18/beta_ls-seed1-smoke/checkpoints/checkpoint_last.pt"
    process = subprocess.Popen(
        [command("labo-fairseq"), *arguments],
        cwd=killed,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.time() + 120
    while not last.exists() and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last.exists()
    assert not (last.parents[1] / "result.json").exists()
    before = last.read_bytes()
    limited = 'ulimit -f 1000; exec "$@"'  # KiB of a file; a checkpoint has more, as on a disk that is full
    full = run("bash", "-c", limited, "bash", command("labo-fairseq"), *arguments, cwd=killed)
    assert full.returncode == 1
    line = f"labo-fairseq run: {last.relative_to(killed)}: File too large; free some space and re-run the same command"
    assert full.stdout.strip().splitlines()[-1].startswith(line), full.stdout
    assert "Traceback" not in full.stdout
    assert last.read_bytes() == before
    resumed = labo(*arguments, cwd=killed)
    assert resumed.returncode == 0, resumed.stdout[-2000:]
    places = [folder / "runs/digits/resnet18/beta_ls-seed1-smoke" for folder in (tmp_path, killed)]
    for name in ("checkpoint_best.pt", "checkpoint_last.pt"):
        one, other = (torch.load(place / "checkpoints" / name) for place in places)
        assert_equal(one["weights"], other["weights"])
    results = [json.loads((place / "result.json").read_text("utf-8")) for place in places]
    assert results[0]["evaluation"] == results[1]["evaluation"]
    one, other = (ImageRun(place, {}, {}).logits("test")[0] for place in places)
    assert torch.equal(one, other)
    assert not [path for path in places[1].rglob("*") if ".part" in path.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("digits", "resnet19"), "unknown network 'resnet19': choose from resnet18"),
        (("digits", "resnet18", "--criterion", "afl"), "no method 'afl' for images: choose from"),
        (("digits", "resnet18", "criterion.tua=2"), "unknown setting criterion.tua: labo has criterion.tau"),
        (("digits", "resnet18", "training.epochs=many"), "training.epochs must be an integer of at least 1, got many"),
        (("digits", "resnet18", "criterion.tau=-1"), "criterion.tau must be a number above 0, got -1"),
        (("digits", "resnet18", "network.width=x"), "network.width must be a number above 0, got x"),
        (("digits", "resnet18", "normalization.mean=0"), "unknown setting normalization.mean: it must begin with"),
        (("digits", "resnet18", "data.validation=5000"), "images are to be held out of 5000"),
        (("imagenet", "resnet50"), "where are the images? Say --archive-dir DIR"),
        (("digits", "resnet18", "--criterion", "ols", "training.mixup=1"), "ols cannot be trained with mixed images"),
        (("digits", "no.such:thing"), "cannot import the network no.such:thing"),
    ],
)
def test_mistakes_are_told_in_one_line_and_leave_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    from labo_fairseq.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LABO_DATA", raising=False)
    assert main(["run", *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]


def test_what_is_no_run_on_images_is_refused(tmp_path):
    assert not is_image_run(tmp_path)
    with pytest.raises(UserError, match="no finished run on images in"):
        load_image_run(tmp_path)
    torch.save({"weights": {}}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="is no checkpoint of a finished run on images"):
        load_network(tmp_path / "x.pt")


def test_a_data_set_is_told_from_a_corpus_by_its_declaration(tmp_path):
    (tmp_path / "mine.yaml").write_text("title: t\nreader: folders\nmean: [0.5]\nstd: [0.5]\n")
    (tmp_path / "incomplete.yaml").write_text("reader: folders\nfolders: {train: train}\n")
    (tmp_path / "corpus.yaml").write_text("corpus: x\nsplits:\n  train: {file: x.tsv,\n    reader: tsv}\n")
    named = {"digits": True, "imagenet": True, "iwslt14": False, "absent.yaml": False}
    named.update({str(tmp_path / f"{file}.yaml"): file != "corpus" for file in ("mine", "incomplete", "corpus")})
    assert {name: is_dataset(name) for name in named} == named


def test_a_report_compares_runs_on_the_same_images(smoke):
    folder, _ = smoke
    arguments = ("run", "digits", "resnet18", "--criterion", "ls", "--smoke")
    assert labo(*arguments, cwd=folder).returncode == 0
    place = folder / "runs" / "digits" / "resnet18"
    names = ["ls-seed1-smoke", "labo-seed1-smoke"]
    done = labo("report", *(place / name for name in names), cwd=folder)
    assert done.returncode == 0, done.stdout[-2000:]
    written = place / names[1] / "report"
    report = json.loads((written / "report.json").read_text("utf-8"))
    assert list(report) == names
    assert report[names[0]]["p"] is None
    assert 0 < report[names[1]]["p"] <= 1
    page = (written / "report.html").read_text("utf-8")
    for word in ("Calibration", "Hard images", "ECE (temperature)", "relative", *names):
        assert word in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    figures = {path.stem for path in written.glob("*.png")}
    assert figures == {"reliability", "curves", *(f"hard-images-{name}" for name in names)}
    for path in written.glob("*.png"):
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for score in report[names[1]]["evaluation"]["tests"]["test"]:
        assert f"{score['value']:.{IMAGE_METRICS[score['name']].digits}f}" in done.stdout
    twice = labo("report", place / names[0], place / names[0], cwd=folder)
    said = f"labo-fairseq report: the run {place / names[0]} is named twice: name another one"
    assert (twice.returncode, twice.stdout.strip()) == (1, said)


def test_a_grid_of_images_is_run_tabulated_and_compared(smoke, monkeypatch, capsys):
    """The scheduler, the tables and the test of significance are those of translation."""
    from labo_fairseq.cli import main

    folder, _ = smoke
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    block = {"dataset": "digits", "networks": ["resnet18"], "methods": ["ls", "labo"], "seeds": [1]}
    other = {**block, "methods": ["labo"], "settings": {"criterion.tau": [2.0]}}
    (folder / "mine.yaml").write_text(json.dumps({"baseline": "ls", "grid": [block, other]}))  # which is YAML
    assert main(["experiment", "run", "mine.yaml", "--smoke"]) == 0
    assert "3 runs" in capsys.readouterr().out
    place = folder / "runs" / "digits" / "resnet18"
    names = ["ls-seed1-smoke", "labo-seed1-smoke", "labo-tau2.0-seed1-smoke"]
    assert main(["experiment", "report", "mine.yaml", "--smoke"]) == 0
    reported = capsys.readouterr().out
    results = [json.loads((place / name / "result.json").read_text("utf-8"))["evaluation"] for name in names]
    test = [{score["name"]: score["value"] for score in result["tests"]["test"]} for result in results]
    cells = json.loads((folder / "runs" / "experiments" / "mine-smoke" / "scores.json").read_text("utf-8"))
    assert [cell["mean"] for cell in cells] == pytest.approx([scores["accuracy"] for scores in test])
    assert cells[1]["delta"] == pytest.approx(test[1]["accuracy"] - test[0]["accuracy"])
    assert 0 < cells[1]["p"] <= 1
    row = next(line for line in reported.splitlines() if line.startswith("| labo | 1 |"))
    for name in ("NLL", "NLL (posterior)", "ECE", "ECE (temperature)"):
        assert f"{test[1][name]:.{IMAGE_METRICS[name].digits}f}" in row
    valid = [{score["name"]: score["value"] for score in result["validation"]}["accuracy"] for result in results]
    chosen = 2 if valid[2] > valid[1] else 1
    assert f"| labo | {['', 'labo', 'labo-tau2.0'][chosen]} | 1 | {test[chosen]['accuracy']:.2f}" in reported
    two = [str(place / name) for name in names[:2]]
    assert main(["compare", *two, "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert [line["metric"] for line in lines] == ["accuracy", "accuracy", "NLL", "NLL"]
    assert (
        lines[1]["p"] == cells[1]["p"] == significance([load_image_run(place / name) for name in names[:2]])[names[1]]
    )
    for line, scores in zip(lines, [test[0], test[1], test[0], test[1]]):
        assert line["score"] == pytest.approx(scores[line["metric"]])
    for arguments, message in (
        (("--metrics", "ECE"), "ECE is no mean over images, so its differences cannot be tested"),
        (("--metrics", "bleu"), "unknown score for image runs 'bleu': choose from accuracy"),
        (("--test", "valid"), "has no test set 'valid'"),
    ):
        assert main(["compare", *two, *arguments]) == 1
        error = capsys.readouterr().err.strip()
        assert message in error
        assert len(error.splitlines()) == 1


def test_the_p_of_a_report_is_two_sided_and_small_only_for_real_differences(tmp_path):
    labels = torch.arange(400) % 4
    runs = []
    for name, wrong in (("base", 100), ("alike", 100), ("slightly", 95), ("better", 20), ("worse", 180)):
        logits = nn.functional.one_hot(labels, 4).float()
        rows = torch.randperm(400, generator=generator_at(name))[:wrong]
        logits[rows] = logits[rows].roll(1, dims=1)
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "predictions.npz", test_logits=logits.numpy(), test_labels=labels.numpy())
        runs.append(ImageRun(tmp_path / name, {}, {}))
    p = significance(runs)
    assert p["base"] is None
    assert p["alike"] > 0.9
    assert 0.2 < p["slightly"] < 0.95
    assert p["better"] < 0.01
    assert p["worse"] < 0.01


def test_hard_images_are_the_ones_with_the_largest_loss_and_their_labels_are_labos(smoke):
    place = smoke[0] / "runs" / "digits" / "resnet18" / "labo-seed1-smoke"
    image_run = load_image_run(place)
    images = hard_images(image_run, [str(digit) for digit in range(10)])
    assert len(images) == 12
    probabilities = [image.position.probability for image in images]
    assert probabilities == sorted(probabilities)
    with np.load(place / "hard_images.npz") as saved:
        logits = torch.from_numpy(saved["logits"]).double()
        label = int(saved["labels"][0])
    p, p_star = logits[0].softmax(-1), (logits[0] / 1.25).softmax(-1)
    alpha = 1 + 0.5 * float((p * p.log()).sum()) / np.log(10)
    right = images[0].position.right
    assert right.token == str(label)
    assert right.label == pytest.approx((1 - alpha) + alpha * float(p_star[label]))
    assert images[0].pixels.shape == (1, 28, 28)

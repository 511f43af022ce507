"""One run on images: train, choose the epoch on validation images, look at the test images once."""

import json
import os
import statistics
import sys
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from .. import __version__
from ..analysis.calibration import expected_calibration_error, fit_temperature, predictions, reliability
from ..checkpoints import read_file, save_file
from ..errors import UserError
from ..evaluation.metrics import Score
from ..files import atomic_write, locked, write_json
from ..images.datasets import ImageData, ImageSet, load_data, load_declaration
from ..images.methods import Method, build_method, find_method
from ..images.networks import build_network
from ..images.settings import SMOKE_IMAGES, Settings, compose, options_of, pixels_of, recipe_of
from ..images.training import Outcome, Trainer, accuracy_and_nll
from ..images.workers import ALONE, Workers
from ..subprocesses import run_module
from .image_result import BINS, TEST, ImageCost, ImageEvaluation, ImageResult, ImageRun
from .image_scores import IMAGE_METRICS
from .machines import Machines
from .run_directory import claim, empty, refuse_foreign, versions

#: what may lie in the directory of a run
_MADE = (
    *("checkpoints", "train.log", "workers.log", "predictions.npz", "hard_images.npz", "training.png", "report"),
    *("result.json", "settings.json"),
)

_HARD = 12  # training images with the largest loss that are kept


def run_images(
    folder: Path,
    dataset: str,
    network: str,
    method: str,
    seed: int,
    overrides: List[str],
    smoke: bool = False,
    fresh: bool = False,
    archive_dir: Optional[Path] = None,
    machines: Optional[Machines] = None,
) -> Tuple[ImageRun, ImageResult]:
    """Make or finish one run; what was done before is not done again.

    Args:
        folder: of the run.
        dataset: name of a declaration, or a YAML file.
        fresh: start over.
        machines: the processes that train; None: this one.

    Returns:
        The run and what came of it.

    Raises:
        UserError: unknown names, settings out of range, data that cannot be had, a directory that holds another run.
    """
    config = with_teacher(compose(load_declaration(dataset), network, method, seed, overrides, smoke), folder)
    workers = machines.workers if machines else 1
    if workers > config["training"]["batch"]:
        raise UserError(f"{workers} processes cannot share a batch of {config['training']['batch']}: use fewer")
    load_teacher(config, folder)
    data = load_images(dataset, config, archive_dir)
    run = ImageRun(folder, config, data.files)
    _build(run, data)  # says what is wrong with its settings before anything is written
    if fresh or not (folder / "settings.json").exists():
        data.check()
    with locked(folder):
        refuse_foreign(folder)
        if fresh:
            empty(folder, _MADE)
        claim(folder, run.settings())
        if not run.result.exists():
            with _progress(config["training"]["epochs"]) as report:
                if machines and workers > 1:
                    _complete_together(run, dataset, archive_dir, machines, report)
                else:
                    device = torch.device("cpu") if machines and not machines.used_gpus else None
                    complete_run(run, data, report, device=device)
        return run, run.read_result()


def load_images(dataset: str, config: Settings, archive_dir: Optional[Path]) -> ImageData:
    """The images of a run: all of the data set, or those of a smoke test.

    Raises:
        UserError: see :func:`load_data`.
    """
    data = load_data(load_declaration(dataset), config["data"], archive_dir)
    return data.first(*SMOKE_IMAGES) if config["smoke"] else data


def complete_run(
    run: ImageRun,
    data: ImageData,
    report: Callable[[Dict[str, Any]], None],
    workers: Workers = ALONE,
    device: Optional[torch.device] = None,
) -> None:
    """Train, from the last checkpoint on, and write all files of ``run``.

    Args:
        report: is given the record of every epoch.
        workers: the processes that call this together, of which the first one writes.
        device: see :class:`Trainer`.

    Raises:
        UserError: see :meth:`Trainer.train`.
    """
    outcome, trainer = _train(run, data, report, workers, device)
    result, arrays = _result(run, data, outcome, trainer)
    if not workers.rank:
        for name, values in arrays.items():
            _save_arrays(run.folder / name, values)
        write_json(run.result, result.to_json())


def _complete_together(
    run: ImageRun,
    dataset: str,
    archive_dir: Optional[Path],
    machines: Machines,
    report: Callable[[Dict[str, Any]], None],
) -> None:
    """:func:`complete_run` in the processes of ``machines``, see :mod:`.image_worker`."""
    failures: List[str] = []

    def watch(line: str) -> None:
        message = parse_message(line)
        if "failed" in message:
            failures.append(message["failed"])
        elif message:
            report(message["record"])

    task = {
        "dataset": dataset,
        "archive_dir": archive_dir and str(archive_dir),
        "config": run.config,
        "gpus": bool(machines.used_gpus),
    }
    worker = ["--module", "labo_fairseq.experiments.image_worker", str(run.folder), json.dumps(task)]
    options, log = [*machines.torchrun(), *worker], run.folder / "workers.log"
    try:
        run_module("torchrun", "labo_fairseq.torchrun", options, log, watch, machines.environment())
    except UserError as error:
        raise UserError(failures[0] if failures else str(error)) from None


@contextmanager
def _progress(epochs: int) -> Iterator[Callable[[Dict[str, Any]], None]]:
    """A function that shows on a bar what the record of an epoch says."""
    with tqdm(total=epochs, desc="train", unit="epoch") as bar:

        def report(record: Dict[str, Any]) -> None:
            bar.update(record["epoch"] - bar.n)
            valid = ""
            if "valid_accuracy" in record:
                valid = f", validation accuracy {record['valid_accuracy']:.2f} %, NLL {record['valid_nll']:.3f}"
            bar.write(f"  epoch {record['epoch']}: training loss {record['train_loss']:.3f}{valid}", file=sys.stderr)

        yield report


def with_teacher(config: Settings, folder: Path) -> Settings:
    """``config`` with the path of its teacher, if it has any, relative to ``folder``.

    Raises:
        UserError: no teacher is named, or it is not there.
    """
    if not find_method(config["criterion"]["name"]).needs_teacher:
        return config
    path = config["criterion"]["teacher_path"]
    if not path:
        raise UserError("distillation needs a teacher: criterion.teacher_path=RUN/checkpoints/checkpoint_best.pt")
    if not Path(path).is_file():
        raise UserError(f"no teacher {path}: train it first")
    told = deepcopy(config)
    told["criterion"]["teacher_path"] = os.path.relpath(path, folder)
    return told


def load_teacher(config: Settings, folder: Path) -> Optional[nn.Module]:
    """The trained network that ``config`` names, in eval mode; None where it names none.

    Raises:
        UserError: the file is no checkpoint of a run on the same data set.
    """
    if not find_method(config["criterion"]["name"]).needs_teacher:
        return None
    # the run's own directory may not be there yet
    path = Path(os.path.normpath(folder / config["criterion"]["teacher_path"]))
    network, dataset = load_network(path)
    if dataset != config["dataset"]:
        raise UserError(f"the teacher {path} was trained on {dataset}, not on {config['dataset']}")
    return network


def load_network(path: Path) -> Tuple[nn.Module, str]:
    """The network in a ``checkpoint_best.pt``, in eval mode, and the name of its data set.

    Raises:
        UserError: it is damaged, or no such file.
    """
    state = read_file(path)
    try:
        network = build_network(state["network"]["name"], state["classes"], state["channels"], state["options"])
        network.load_state_dict(state["weights"])
        return network.eval(), state["dataset"]
    except (KeyError, TypeError, RuntimeError, AttributeError):
        raise UserError(f"{path} is no checkpoint of a finished run on images") from None


def _build(run: ImageRun, data: ImageData) -> nn.Module:
    """The network of ``run``, with fresh weights."""
    network = run.config["network"]
    return build_network(network["name"], len(data.classes), data.train.shape[0], options_of(network))


def _train(
    run: ImageRun,
    data: ImageData,
    report: Callable[[Dict[str, Any]], None],
    workers: Workers,
    device: Optional[torch.device],
) -> Tuple[Outcome, Trainer]:
    config = run.config
    trainer = Trainer(
        data,
        lambda: _build(run, data),
        lambda context: build_method(config["criterion"]["name"], context, options_of(config["criterion"])),
        recipe_of(config),
        pixels_of(config),
        config["seed"],
        run.folder / "checkpoints" / "checkpoint_last.pt",
        load_teacher(config, run.folder),
        device,
        workers,
    )

    def write(record: Dict[str, Any]) -> None:
        _write_log(run.log, trainer.history)
        report(record)

    outcome = trainer.train((lambda record: None) if workers.rank else write)
    trainer.network.load_state_dict(outcome.weights)
    if workers.rank:
        return outcome, trainer
    _write_log(run.log, trainer.history)
    # says by itself what it is, for those who take it for a teacher
    best = {
        "weights": outcome.weights,
        "network": {"name": config["network"]["name"]},
        "options": options_of(config["network"]),
        "classes": len(data.classes),
        "channels": data.train.shape[0],
        "dataset": config["dataset"],
    }
    save_file(run.checkpoint, best)
    return outcome, trainer


def parse_message(line: str) -> Dict[str, Any]:
    """What a line of a worker's output tells the process that started it: ``record`` or ``failed``; else nothing."""
    try:
        message = json.loads(line) if line.startswith('{"') else {}
    except ValueError:
        return {}
    return message if {"record", "failed"} & message.keys() else {}


def _write_log(path: Path, history: List[Dict[str, Any]]) -> None:
    with atomic_write(path) as part:
        part.write_text("".join(json.dumps(record) + "\n" for record in history), encoding="utf-8")


def _result(
    run: ImageRun, data: ImageData, outcome: Outcome, trainer: Trainer
) -> Tuple[ImageResult, Dict[str, Dict[str, np.ndarray]]]:
    """What came of a run; and file → arrays: the logits that it follows from, the hardest images."""
    sets = {name: images for name, images in (("valid", data.valid), (TEST, data.test)) if images is not None}
    logits = {name: trainer.predict(images) for name, images in sets.items()}
    labels = {name: images.labels for name, images in sets.items()}
    arrays = {f"{name}_logits": values.numpy() for name, values in logits.items()}
    arrays.update({f"{name}_labels": values.numpy() for name, values in labels.items()})
    files = {"predictions.npz": arrays, "hard_images.npz": _hard_images(data.train, trainer)}
    temperature = None
    if "valid" in logits:
        temperature = fit_temperature(lambda: [(logits["valid"], labels["valid"])])
    scores = {name: measure(logits[name], labels[name], temperature, trainer.method) for name in logits}
    cost = ImageCost(
        seconds=outcome.seconds,
        peak_memory_mib=outcome.peak_memory_mib,
        seconds_per_epoch=statistics.median(record["seconds"] for record in outcome.history),
        parameters=sum(weight.numel() for weight in trainer.network.parameters()),
        device=_device_name(trainer.device, trainer.workers.number),
        images={name: len(images) for name, images in {"train": data.train, **sets}.items()},
    )
    evaluation = ImageEvaluation(
        run.checkpoint.name, {TEST: scores[TEST]}, outcome.epoch, temperature, scores.get("valid", [])
    )
    return ImageResult(run.settings(), versions(), cost, evaluation, list(data.classes)), files


def measure(logits: Tensor, labels: Tensor, temperature: Optional[float], method: Method) -> List[Score]:
    """Accuracy, negative log-likelihood and calibration error: of p, of the posterior, at a temperature."""
    images = f"n:{len(labels)}|v:{__version__}"
    accuracy, _ = accuracy_and_nll(logits, labels)
    scores = [Score("accuracy", accuracy, f"unit:%|{images}")]
    kinds = {"": logits.double().log_softmax(dim=-1)}
    posterior = method.log_posterior(logits.double())
    if posterior is not None:
        kinds[" (posterior)"] = posterior
    if temperature is not None:
        kinds[" (temperature)"] = (logits.double() / temperature).log_softmax(dim=-1)
    for kind, log_p in kinds.items():
        _, nll = accuracy_and_nll(log_p, labels)
        predicted = predictions(log_p, labels)
        ece = expected_calibration_error(reliability(predicted.confidence, predicted.correct, BINS))
        fitted = f"T:{temperature:.3f}|" if kind == " (temperature)" else ""
        scores.append(Score(f"NLL{kind}", nll, f"unit:nats|{fitted}{images}"))
        scores.append(Score(f"ECE{kind}", 100 * ece, f"unit:%|bins:{BINS}|{fitted}{images}"))
    return scores


def _hard_images(train: ImageSet, trainer: Trainer) -> Dict[str, np.ndarray]:
    """The training images, not augmented, of which the network is most wrong."""
    logits = trainer.predict(train)
    nll = -logits.log_softmax(dim=-1).gather(-1, train.labels[:, None]).squeeze(-1)
    hard = nll.argsort(descending=True)[:_HARD]
    pixels = train.load(hard)
    return {"pixels": pixels.numpy(), "logits": logits[hard].numpy(), "labels": train.labels[hard].numpy()}


def _save_arrays(path: Path, arrays: Dict[str, np.ndarray]) -> None:
    with atomic_write(path) as part:
        np.savez(part, **arrays)  # type: ignore[arg-type]


def _device_name(device: torch.device, processes: int) -> str:
    name = f"CPU, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return name if processes == 1 else f"{processes} × {name}"


def summarize_images(run: ImageRun, result: ImageResult) -> None:
    """Print what a finished run has to say."""
    evaluation, training = result.evaluation, result.training
    print(f"\n{TEST}  ({evaluation.checkpoint} of epoch {evaluation.epoch})")
    for score in evaluation.tests[TEST]:
        print(f"  {score.name:<38}{IMAGE_METRICS[score.name].text([score.value])}  ({score.signature})")
    kinds = {"train": "training", "valid": "validation", TEST: "test"}
    numbers = ", ".join(f"{number:,} {kinds[name]}" for name, number in training.images.items())
    print(f"{'images':<18}{numbers}; {len(result.classes)} classes")
    print(f"{'training':<18}{training.seconds_per_epoch:.1f} s per epoch on {training.device}")
    print(f"{'memory':<18}{training.peak_memory_mib:,} MiB at most")
    print(f"{'network':<18}{training.parameters:,} weights")
    print(f"{'run':<18}{run.folder}")

"""When a method pays: its gain over the baseline by how far cross-entropy overfits in the same training."""

import json
import re
import statistics
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import UserError
from ..evaluation.metrics import find_metric, sentence_statistics
from ..evaluation.runs import Run
from ..evaluation.significance import Difference, plus_minus, pool_tests, resample
from ..files import read_lines
from ..reporting.figure import Figure, legend_above, marker_style, plain
from ..reporting.table import Table
from ..reporting.training_log import parse_record, read_curves
from .base import Analysis, AnalysisResult


@dataclass(frozen=True)
class Gain:
    """A method in one kind of training: a corpus, a direction, and all settings but those of the criterion."""

    training: str
    method: str
    gap: float  # of cross-entropy at its end, bits a token: validation NLL − training NLL with dropout; mean over seeds
    rise: float  # of cross-entropy: validation NLL at its end over its minimum; mean over seeds
    seeds: List[int]  # that the method and the baseline have
    baseline: float  # BLEU, mean over the test sets and the seeds
    delta: float  # BLEU − that of the baseline
    std: Optional[float]  # of the difference, over the seeds; None for one
    p: Optional[float]  # that the difference is chance, all test sets together, given the seeds
    p_over_seeds: Optional[float]  # the same over seeds, see Difference


@dataclass(frozen=True)
class _Training:
    """All runs of one kind of training: method → seed → run."""

    name: str
    runs: Dict[str, Dict[int, Run]]

    @property
    def overfitting(self) -> Optional[Tuple[float, float]]:
        """Gap and rise, see :class:`Gain`; None where no run was with cross-entropy alone."""
        measured = [
            _overfitting(run) for seeds in self.runs.values() for run in seeds.values() if _is_cross_entropy(run)
        ]
        if not measured:
            return None
        gap, rise = map(statistics.mean, zip(*measured))
        return gap, rise


class OverfittingAnalysis(Analysis):
    """The gain of each method over the baseline, by how far cross-entropy overfits."""

    name = "overfitting"
    summary = "gain over the baseline by how far cross-entropy overfits, over several corpora or schedules"
    description = (
        "Runs that differ in nothing but criterion and seed are one kind of training; of each kind there must be runs "
        "with the baseline, which is the method of the first run, and with cross-entropy (ce). How far it overfits: by "
        "how much its validation NLL is above its training NLL at its end. BLEU, the mean over all test sets."
    )
    in_report = False

    def run(self, runs: Sequence[Run], folder: Path, **options: Any) -> AnalysisResult:
        baseline = _method(runs[0])
        gains = [gain for training in _trainings(runs) for gain in _gains(training, baseline)]
        if not gains:
            raise UserError(
                f"no kind of training was run with cross-entropy, with {baseline} and with another method of the same "
                "seed: name such runs, the baseline first"
            )
        return overfitting_result(gains, baseline)


def _method(run: Run) -> str:
    return re.sub(r"-seed\d+", "", run.folder.resolve().name)


def _is_cross_entropy(run: Run) -> bool:
    criterion = run.config["criterion"]
    smoothed = criterion["_name"] == "label_smoothed_cross_entropy" and criterion.get("label_smoothing") == 0
    return criterion["_name"] == "cross_entropy" or smoothed


def _overfitting(run: Run) -> Tuple[float, float]:
    """Gap and rise, see :class:`Gain`, of one run.

    Raises:
        UserError: its log holds no validation, or no whole epoch of training.
    """
    validation = read_curves(run.log)["valid"].get("nll_loss", {})
    records = filter(None, map(parse_record, read_lines(run.log)))
    training = [record[1]["train_nll_loss"] for record in records if record[0] == "train"]
    if not validation or not training:
        raise UserError(f"{run.log} holds no validation, or no whole epoch of training")
    last = validation[max(validation)]
    return last - training[-1], last / min(validation.values())


def _trainings(runs: Sequence[Run]) -> List[_Training]:
    """``runs`` by what they were trained on and how, in the order of the first of each kind."""
    kinds: Dict[str, _Training] = {}
    for run in runs:
        config = {name: value for name, value in run.config.items() if name != "criterion"}
        config["common"] = {name: value for name, value in config.get("common", {}).items() if name != "seed"}
        kind = json.dumps([run.data.recipe, run.directions, config, run.checkpoint_name], sort_keys=True)
        if kind not in kinds:
            kinds[kind] = _Training(_describe(run), {})
        kinds[kind].runs.setdefault(_method(run), {})[run.config["common"]["seed"]] = run
    return list(kinds.values())


def _describe(run: Run) -> str:
    corpus = str(run.data.recipe["corpus"]).partition(",")[0]
    directions = ", ".join("-".join(direction) for direction in run.directions)
    updates = max(read_curves(run.log)["valid"].get("nll_loss", {0: 0.0}))
    return f"{corpus} {directions}, {updates:,} updates"


def _gains(training: _Training, baseline: str) -> List[Gain]:
    """Of every method that has a seed of the baseline; none where cross-entropy is missing."""
    overfitting, with_baseline = training.overfitting, set(training.runs.get(baseline, {}))
    shared = {
        method: sorted(with_baseline & set(seeds)) for method, seeds in training.runs.items() if method != baseline
    }
    if overfitting is None or not any(shared.values()):
        return []
    runs = {(method, seed): run for method, seeds in training.runs.items() for seed, run in seeds.items()}
    scores = dict(zip(runs, _scores(list(runs.values()))))
    gains = []
    for method, seeds in shared.items():
        if seeds:
            theirs, ours = (np.stack([scores[one, seed] for seed in seeds]) for one in (baseline, method))
            of = Difference.of_samples(seeds, theirs, ours)
            means = float(theirs[:, 0].mean()), of.mean
            tests = of.std, of.p, of.p_over_seeds
            gains.append(Gain(training.name, method, *overfitting, seeds, *means, *tests))
    return gains


def _scores(runs: Sequence[Run]) -> np.ndarray:
    """(runs, 1 + samples): BLEU, the mean over the test sets, and of samples of them.

    Raises:
        UserError: there is no test set but the validation set.
    """
    first, tests = runs[0], []
    for direction in first.directions:
        scoring = first.data.scoring_for(direction[1])
        metric = find_metric("bleu", scoring)
        for test in first.data.tests:
            if not first.is_validation(test, direction):
                rows = [sentence_statistics(metric, run.translated(test, direction), scoring) for run in runs]
                tests.append(resample(metric, rows))
    if not tests:
        raise UserError(f"{first.folder} has no test set but its validation set")
    return pool_tests(tests)


def overfitting_result(gains: Sequence[Gain], baseline: str) -> AnalysisResult:
    """Table and figure; the trainings in the order of how far cross-entropy overfits."""
    ordered = sorted(gains, key=lambda gain: gain.gap)
    header = ("training", "gap", "rise", "method", "seeds", baseline, "Δ", "p", "over seeds")
    rows = []
    for gain in ordered:
        tests = ("" if p is None else f"{p:.3f}" for p in (gain.p, gain.p_over_seeds))
        numbers = (f"{len(gain.seeds)}", f"{gain.baseline:.2f}", f"{gain.delta:+.2f}{plus_minus(gain.std)}", *tests)
        rows.append((gain.training, f"{gain.gap:.2f}", f"{gain.rise:.3f}", gain.method, *numbers))
    return AnalysisResult(
        "overfitting",
        f"Gain over {baseline} by overfitting",
        "How far cross-entropy overfits: at the end of the training its validation NLL less its training NLL, which is "
        "measured with dropout (gap, bits per token), and its validation NLL over its minimum (rise, 1.000 where it "
        f"never rose). BLEU: the mean over the test sets. Δ: to {baseline}, mean ± standard deviation over the seeds "
        "that both have; p: two-sided paired bootstrap over all test sets, given these seeds; over seeds: two-sided "
        "paired t-test, given the test sets.",
        [Table(f"BLEU against {baseline}", header, rows)],
        [
            Figure(
                "overfitting",
                f"Dots: gain in BLEU over {baseline} by validation NLL less training NLL of cross-entropy. "
                "The table holds the numbers.",
                (8, 4.5),
                partial(paint_gains, gains=ordered, baseline=baseline),
            )
        ],
        [{**asdict(gain), "seeds": " ".join(map(str, gain.seeds))} for gain in ordered],
        {"baseline": baseline},
    )


def paint_gains(figure: Any, gains: Sequence[Gain], baseline: str) -> None:
    """A dot with its standard deviation for each method and training, the training's name at its highest dot."""
    axes = figure.subplots()
    for number, method in enumerate(dict.fromkeys(gain.method for gain in gains), 1):
        mine = [gain for gain in gains if gain.method == method]
        points = [gain.gap for gain in mine], [gain.delta for gain in mine]
        spread = [gain.std or 0.0 for gain in mine]
        axes.errorbar(*points, yerr=spread, linestyle="none", capsize=3, label=method, **marker_style(number))
    for training in dict.fromkeys(gain.training for gain in gains):
        top = max((gain for gain in gains if gain.training == training), key=lambda gain: gain.delta)
        place = {"xytext": (4, 6), "textcoords": "offset points", "rotation": 30, "rotation_mode": "anchor"}
        axes.annotate(training, (top.gap, top.delta), fontsize=8, **place)
    axes.axhline(0, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("cross-entropy at its end: validation NLL − training NLL (bits)")
    axes.set_ylabel(f"BLEU − BLEU of {baseline}")
    axes.margins(x=0.25, y=0.3)
    plain(axes)
    legend_above(figure)


ANALYSIS = OverfittingAnalysis()

"""Runs that classify images: a data set and a network."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ...errors import UserError
from ...evaluation.runs import BEST, RunResult
from ...evaluation.significance import Compared
from ...files import image_methods
from ...images.datasets import load_declaration
from ...images.methods import find_method
from ...images.settings import compose
from ...reporting.table import Table
from ..image_report import write_image_report
from ..image_result import TEST, ImageRun, load_image_run
from ..image_scores import (
    ACCURACY,
    IMAGE_METRICS,
    accuracy_curve,
    all_scores,
    compare_image_runs,
    find_image_metric,
    image_statistics,
    mean_of_sums,
    tuned,
)
from ..run_directory import run_folder
from .base import GridRun, Kind, Place, Scored, Shown, Subject


class ImageSubject(Subject):
    """A data set and a network."""

    checkpoint = BEST

    def __init__(self, dataset: str, network: str) -> None:
        self.declaration, self.argument = load_declaration(dataset), network
        # a module's function is named behind a colon, which no folder may have
        self.name, self.direction = self.declaration.name, network.replace(":", ".")
        self.timed_with = f"{dataset} {network}"
        self._methods = image_methods()
        self.plain("ce")  # for what it refuses

    def methods(self) -> List[str]:
        return self._methods

    def takes_teachers(self, method: str) -> bool:
        return find_method(method).needs_teacher

    def hours(self, method: str) -> Dict[str, float]:
        declared = self.declaration.hours.get(self.argument, {})
        # a backward pass takes as long as two forward passes
        return {device: hours * (find_method(method).forward_passes + 2) / 3 for device, hours in declared.items()}

    def config(self, method: str, seed: int, overrides: Sequence[str] = (), smoke: bool = False) -> Dict[str, Any]:
        return compose(self.declaration, self.argument, method, seed, overrides, smoke)

    def plain(self, method: str, overrides: Sequence[str] = ()) -> Dict[str, Any]:
        return self.config(method, 1, overrides)

    def run_folder(self, root: Path, name: str) -> Path:
        return run_folder(root, self.name, self.direction, name)


@lru_cache(maxsize=None)  # a grid asks for it once per run
def _find(dataset: str, network: str) -> ImageSubject:
    return ImageSubject(dataset, network)


class Images(Kind):
    """Trained and scored by :mod:`..image_run`."""

    keys = ("dataset", "networks")
    own_keys = ("teacher_network",)
    unscored = "not every method has a posterior, and without validation images no temperature is fitted"

    def find(self, name: str, direction: str, smoke: bool = False) -> ImageSubject:
        return _find(name, direction)

    def load(self, folder: Path) -> ImageRun:
        return load_image_run(folder)

    def shown(self, metric: str) -> Shown:
        name = find_image_metric(metric or ACCURACY)
        return Shown(name, name, IMAGE_METRICS[name].lower_is_better, IMAGE_METRICS[name].digits)

    def scores(self, run: ImageRun, result: RunResult, direction: str, metric: str) -> Dict[Place, Scored]:
        recorded = next((score for score in result.evaluation.tests[TEST] if score.name == metric), None)
        if recorded is None:
            return {}
        return {Place(direction, TEST): Scored(recorded, image_statistics(run, metric), mean_of_sums)}

    def validation_curve(self, log: Path) -> Tuple[List[Tuple[int, float]], str]:
        points, images = accuracy_curve(log)
        return points, f"{images} accuracy (%)"

    def progress(self, log: Path, config: Dict[str, Any]) -> str:
        points, images = accuracy_curve(log)
        return f"training {len(points) / config['training']['epochs']:4.0%}, {images} accuracy {points[-1][1]:.2f}"

    def compare(
        self, folders: Sequence[Path], test: Sequence[str], metrics: Sequence[str], samples: int
    ) -> List[Compared]:
        if list(test) not in ([], [TEST]):
            raise UserError(f"{folders[0]} has no test set {' '.join(test)!r}: runs on images have {TEST!r}")
        return compare_image_runs([load_image_run(folder) for folder in folders], metrics, samples)

    def report(self, folders: Sequence[Path], out: Optional[Path]) -> Tuple[Path, List[Table]]:
        runs = [load_image_run(folder) for folder in folders]
        return write_image_report(runs, out or runs[-1].folder / "report")

    def more_tables(self, finished: Sequence[GridRun], baseline: str) -> List[Table]:
        """All scores and the cost, per data set and network; where a method has several variants, the chosen ones."""
        groups: Dict[str, Dict[str, Dict[int, ImageRun]]] = {}
        for one in finished:
            assert isinstance(one.run, ImageRun)
            groups.setdefault(one.group, {}).setdefault(one.variant, {})[one.seed] = one.run
        tables = []
        for title, variants in groups.items():
            if len({run.method for seeds in variants.values() for run in seeds.values()}) < len(variants):
                chosen = tuned(f"{title}, hyper-parameters chosen on validation images", variants, baseline)
                tables += [chosen] if chosen else []
            tables.append(all_scores(f"{title}, all scores", variants, baseline))
        return tables

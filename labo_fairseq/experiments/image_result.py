"""One run on images on disk, as :mod:`..evaluation.runs` for translation: its files, and what came of it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..evaluation.metrics import Score
from ..evaluation.runs import Evaluation, RunFolder, RunResult, TrainingCost, is_image_run, read_scores
from ..images.settings import Settings

TEST = "test"  # the name of the test set
BINS = 15  # of the calibration error (Guo et al., 2017)


@dataclass(frozen=True)
class ImageCost(TrainingCost):
    """What the training of a network took; its seconds are those of training steps, over all starts."""

    seconds_per_epoch: float  # median
    parameters: int
    device: str
    images: Dict[str, int]  # by split


@dataclass(frozen=True)
class ImageEvaluation(Evaluation):
    """Scores of the chosen epoch."""

    epoch: int  # from 1
    temperature: Optional[float]  # fitted on the validation images; None where there are none
    validation: List[Score]


@dataclass(frozen=True)
class ImageResult(RunResult):
    """What a finished run on images has to say."""

    training: ImageCost
    evaluation: ImageEvaluation
    classes: List[str]

    @classmethod
    def from_json(cls, value: Dict[str, Any]) -> "ImageResult":
        evaluation = dict(value["evaluation"])
        evaluation["tests"] = read_scores(evaluation["tests"])
        evaluation["validation"] = [Score(**score) for score in evaluation["validation"]]
        parts = {"training": ImageCost(**value["training"]), "evaluation": ImageEvaluation(**evaluation)}
        return cls(**{**value, **parts})

    def to_json(self) -> Dict[str, Any]:
        """What ``result.json`` holds."""
        evaluation = {
            **vars(self.evaluation),
            "validation": [score.to_json() for score in self.evaluation.validation],
            "tests": self.evaluation.tests_to_json(),
        }
        return {**vars(self), "training": asdict(self.training), "evaluation": evaluation}

    @property
    def scores(self) -> Dict[str, Score]:
        """Name → score on the test images."""
        return {score.name: score for score in self.evaluation.tests[TEST]}


@dataclass(frozen=True)
class ImageRun(RunFolder):
    """What is trained on which images; its configuration is that of :func:`..images.settings.compose`."""

    files: Dict[str, str]  # of the data set, with their SHA-256

    @property
    def checkpoint(self) -> Path:
        """The weights of the chosen epoch."""
        return self.checkpoints / "checkpoint_best.pt"

    @property
    def method(self) -> str:
        """What it is trained with."""
        return self.config["criterion"]["name"]

    def settings(self) -> Settings:
        """What tells this run from another."""
        return {"config": self.config, "files": self.files}

    def read_result(self) -> ImageResult:
        """What came of it, once it is finished."""
        return ImageResult.read(self.result)

    def logits(self, split: str) -> Tuple[Tensor, Tensor]:
        """Logits (N, K), float32, and labels (N,) of ``"valid"`` or ``"test"``."""
        with np.load(self.folder / "predictions.npz") as saved:
            return torch.from_numpy(saved[f"{split}_logits"]), torch.from_numpy(saved[f"{split}_labels"])


def load_image_run(folder: Path) -> ImageRun:
    """The finished run on images in ``folder``.

    Raises:
        UserError: there is none.
    """
    if not is_image_run(folder):
        raise UserError(f"no finished run on images in {folder}")
    settings = ImageResult.read(folder / "result.json").settings
    return ImageRun(folder, settings["config"], settings["files"])

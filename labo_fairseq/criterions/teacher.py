"""Trained models that a criterion asks for their probabilities."""

import copy
from functools import reduce
from pathlib import Path
from typing import Any, Dict, List

import torch
from fairseq import checkpoint_utils, utils
from fairseq.models import FairseqMultiModel
from torch import Tensor, nn

from ..errors import UserError
from ..fairseq_patches.safe_checkpoint_loading import load_to_cpu


class Teacher:
    """One or more checkpoints, whose mean probabilities are made a batch at a time and kept nowhere.

    It is no module, for fairseq trains and saves the parameters of the modules in a criterion.

    Args:
        paths: checkpoints, separated as fairseq-generate's ``--path`` separates them.
        task: that of the student, with the dictionaries that the teachers must share.

    Raises:
        ValueError: a file is missing, is no checkpoint, or holds a model that does not fit the task.
    """

    def __init__(self, paths: str, task: Any) -> None:
        self._models: List[Any] = [_load(path, task) for path in utils.split_paths(paths)]
        #: whether :meth:`follow` has been called
        self.following = False

    def follow(self, student: nn.Module) -> None:
        """Move to the device and the dtype of the student's parameters."""
        self.following = True
        parameter = next(student.parameters())
        for model in self._models:
            model.to(device=parameter.device, dtype=parameter.dtype)

    @torch.no_grad()
    def probabilities(self, sample: Dict[str, Any]) -> Tensor:
        """The mean over the models, (sentences, positions, K), float32."""
        predictions = (
            model.get_normalized_probs(model(**sample["net_input"]), log_probs=False, sample=sample)
            for model in self._models
        )
        return reduce(Tensor.add_, predictions).div_(len(self._models))


def _load(path: str, task: Any) -> nn.Module:
    if not Path(path).is_file():
        raise ValueError(f"teacher-path {path}: there is no such file")
    try:
        state = load_to_cpu(path)
        # The student's task is not to change. It would take over the state of the teacher's, and with --eval-bleu
        # translate with the model that was built last.
        state.pop("task_state", None)
        (model,), cfg = checkpoint_utils.load_model_ensemble([path], task=copy.copy(task), state=state)
    except UserError as error:
        raise ValueError(f"teacher-path {error}") from None
    except Exception as error:  # whatever loading a file of any kind may lead to
        if "size mismatch" in str(error):
            raise ValueError(f"teacher-path {path}: it was trained with dictionaries of another size") from error
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"teacher-path {path}: it cannot be loaded as a checkpoint of fairseq ({reason})") from error
    if isinstance(model, FairseqMultiModel):
        raise ValueError(f"teacher-path {path}: it holds a model for every pair of languages, and a teacher is one")
    for side in ("source_lang", "target_lang"):
        its, own = (getattr(config, side, None) for config in (cfg.task, task.cfg))
        if its and own and its != own:
            raise ValueError(f"teacher-path {path}: its {side.replace('_', '-')} is {its}, not {own}")
    return model.eval().requires_grad_(False)

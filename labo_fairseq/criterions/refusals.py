"""What a criterion cannot be trained with ends the program with one line, where fairseq would print a traceback.

``name`` is that of the criterion, with which the line begins.
"""

import inspect
from contextlib import contextmanager
from typing import Any, Dict, Iterator

import torch
from fairseq.tasks.semisupervised_translation import SemisupervisedTranslationTask
from torch import Tensor

from ..fairseq_patches.command_line import as_written

#: so many batches of short sentences in a row are no chance
_BATCHES_WITHOUT_TOKENS = 20


@contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """A ValueError, which begins with the name of an option, as that line."""
    try:
        yield
    except ValueError as error:
        raise SystemExit(as_written(f"{name}: --{error}")) from None


def refuse_task(name: str, task: Any) -> None:
    """A task of fairseq's that wants another criterion, or fails with every one."""
    if isinstance(task, SemisupervisedTranslationTask):
        raise SystemExit(
            f"{name}: fairseq's task semisupervised_translation fails in its first update, whatever the criterion "
            "(KeyError: 'loss'); take --task online_backtranslation or multilingual_translation"
        )
    if getattr(task, "multitask_tasks", None):
        raise SystemExit(
            as_written(
                f"{name}: a training with --multitask-config-yaml needs a loss for every one of its tasks; leave it "
                "out, or take the criterion that fairseq has for it, such as label_smoothed_cross_entropy_with_ctc"
            )
        )


def refuse_model(name: str, model: Any, sample: Dict[str, Any]) -> None:
    """A model that cannot be called with the batch alone.

    Models that are trained with a loss of their own, such as the non-autoregressive ones, want more than that.
    """
    while hasattr(model, "module"):
        model = model.module
    try:
        inspect.signature(model.forward).bind(**sample["net_input"])
    except TypeError as error:
        raise SystemExit(
            f"{name}: {type(model).__name__} cannot be called with what this task puts into a batch ({error}): train "
            "it with the criterion that was made for it"
        ) from None


def refuse_output(name: str, model: Any, output: Any, target: Any) -> None:
    """An output that is not one row of logits, or of what they are made of, for every token of the target."""
    if getattr(getattr(model, "decoder", None), "adaptive_softmax", None) is not None:
        raise SystemExit(
            as_written(
                f"{name}: this model has an adaptive softmax, which gives no logits over the whole vocabulary; train "
                "it without --adaptive-softmax-cutoff, or with --criterion adaptive_loss"
            )
        )
    if not (
        torch.is_tensor(output)
        and torch.is_tensor(target)
        and output.dim() == 3
        and output.shape[:2] == target.shape
        and not target.is_floating_point()
    ):
        raise SystemExit(
            f"{name}: {type(model).__name__} does not predict one word for every position of the target in this task: "
            "train it with the criterion that was made for it"
        )


def refuse_diverged(name: str, loss: Tensor, update: int) -> None:
    """A loss that is NaN or infinite, before its gradient reaches a parameter.

    The loss is not scaled yet: a loss scale that is too large overflows the gradient alone, which fairseq corrects.
    """
    if not torch.isfinite(loss).all():
        raise SystemExit(
            as_written(
                f"{name}: the loss of update {update} is {loss.sum().item()}: NaN or inf in the logits, the model has "
                "diverged. Go on from the last checkpoint with a lower --lr, more --warmup-updates or a smaller "
                "--clip-norm; instead of --fp16, whose numbers end at 65504, with --bf16"
            )
        )


class FirstBatches:
    """A training whose first batches have no token that counts."""

    def __init__(self, name: str, ignore_prefix_size: int) -> None:
        self._name, self._prefix = name, ignore_prefix_size
        self._empty = 0
        self._found = False

    def see(self, counted: Tensor) -> None:
        """End the program where this batch of the training, with so many tokens that count, is one too many."""
        if self._found:
            return
        self._found = bool(counted > 0)
        self._empty += 1
        if not self._found and self._empty == _BATCHES_WITHOUT_TOKENS:
            raise SystemExit(
                as_written(
                    f"{self._name}: no target token of the first {_BATCHES_WITHOUT_TOKENS} batches is left to learn "
                    f"from: --ignore-prefix-size {self._prefix} must be less than the length of the target sentences"
                )
            )

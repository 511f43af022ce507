"""LABO in the ``Trainer`` and the ``Seq2SeqTrainer`` of transformers.

>>> loss = TrainerLoss(LaboLoss(tau=1.25), warmup_steps=5000)
>>> trainer = Seq2SeqTrainer(..., compute_loss_func=loss, callbacks=[loss])
"""

import copy
import logging
from typing import Any, Optional, Union

import torch
from torch import Tensor
from transformers import LogitsProcessor, TrainerCallback

from ..losses import LaboLoss

logger = logging.getLogger(__name__)

#: what transformers marks padding with, in the labels and where it counts them
_IGNORED = -100

_MISSING_DECODER_INPUT = (
    "the batch has no decoder_input_ids: with a loss of its own the Trainer keeps the labels from the model, which "
    "would decode from the source. Give the collator the model, DataCollatorForSeq2Seq(tokenizer, model=model), and "
    "it makes them of the labels"
)


class TrainerLoss(TrainerCallback):
    """A loss for ``compute_loss_func``, and the callback that tells it of the model and of optimizer updates.

    The same object goes to both arguments of the trainer. The sum over the tokens is divided by the number of tokens
    in all micro-batches of the update, on all processes, as the trainer counts them: gradient accumulation and the
    number of processes change nothing.

    In evaluation it is the cross-entropy, whatever ``loss`` is: so ``eval_loss``, by which the trainer knows the best
    model and when to stop early, means the same in the warm-up and after it, and its exponential is a perplexity.

    Args:
        loss: its ``ignore_index`` is −100; its ``reduction`` is not used.
        warmup_steps: optimizer updates of label smoothing, for a ``loss`` that was made without; a resumed training
            goes on where it was.
        shift_labels: whether the label of a token is the next one. By default it is for models that generate
            and have no encoder (decoder-only language models).

    Raises:
        ValueError: an option of the loss does not suit, or, once training begins, the object is not among the
            callbacks, a batch has no labels, or nothing for the decoder to begin from.
    """

    def __init__(self, loss: LaboLoss, warmup_steps: Optional[int] = None, shift_labels: Optional[bool] = None) -> None:
        if loss.ignore_index != _IGNORED:
            raise ValueError(f"ignore_index must be -100, which transformers pads with, got {loss.ignore_index}")
        self.loss = copy.deepcopy(loss)
        self.loss.reduction = "mean"
        if warmup_steps is not None:
            self.loss.warmup_steps = warmup_steps
        self.loss.set_updates(0)
        self._cross_entropy = LaboLoss(alpha=0.0, ignore_index=_IGNORED)
        self.shift_labels = shift_labels
        self._model: Optional[torch.nn.Module] = None

    def __call__(self, outputs: Any, labels: Optional[Tensor], num_items_in_batch: Any = None) -> Tensor:
        """The loss of a micro-batch, for ``compute_loss_func``; the cross-entropy where the model is in eval mode.

        Args:
            outputs: of the model; logits (sentences, positions, K), or (sentences, K) for a classifier.
            labels: (sentences, positions), or (sentences,).
            num_items_in_batch: the number of labels in the update; None stands for those of this micro-batch.
        """
        if self._model is None:
            raise ValueError("TrainerLoss does not know the model: give it to the trainer as callbacks=[loss] too")
        if labels is None:
            raise ValueError("the batch has no labels: the data set or the collator must give them")
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        if self.shift_labels:
            logits, labels = logits[..., :-1, :], labels[..., 1:]
        loss = self.loss.to(logits.device) if self._model.training else self._cross_entropy
        return loss(logits.reshape(-1, logits.size(-1)), labels.reshape(-1), divisor=num_items_in_batch)

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The trainer is ready: learn what the model is."""
        if args.n_gpu > 1:
            raise ValueError(
                f"{args.n_gpu} GPUs in one process would each divide by all tokens: start the program with torchrun, "
                "a process per GPU, or make one of them visible"
            )
        if args.label_smoothing_factor:
            logger.warning(
                "label_smoothing_factor=%s has no effect beside compute_loss_func; that of the warm-up is an option "
                "of the loss, label_smoothing=%s",
                args.label_smoothing_factor,
                self.loss.label_smoothing,
            )
        self._model = model = kwargs["model"]
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        has_encoder = getattr(getattr(base, "config", None), "is_encoder_decoder", False)
        if self.shift_labels is None:
            self.shift_labels = not has_encoder and hasattr(base, "can_generate") and base.can_generate()
        if has_encoder:
            base.register_forward_pre_hook(_check_decoder_input, with_kwargs=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A training begins or goes on."""
        self.loss.set_updates(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An optimizer update was made."""
        self.loss.set_updates(state.global_step)


class PosteriorLogits(LogitsProcessor):
    """Lets ``generate`` search with calibrated probabilities.

    >>> model.generate(..., logits_processor=LogitsProcessorList([PosteriorLogits(loss)]))

    Args:
        loss: what the model was trained with; a :class:`TrainerLoss` also knows whether its warm-up is over.
    """

    def __init__(self, loss: Union[LaboLoss, TrainerLoss]) -> None:
        self.loss = loss.loss if isinstance(loss, TrainerLoss) else loss

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """log y of the scores (hypotheses, K), which are logits or log-probabilities."""
        return self.loss.log_posterior(scores)


def _check_decoder_input(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
    names = ("decoder_input_ids", "decoder_inputs_embeds", "labels")
    if all(kwargs.get(name) is None for name in names):
        raise ValueError(_MISSING_DECODER_INPUT)

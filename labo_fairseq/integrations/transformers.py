"""LABO in the ``Trainer`` and the ``Seq2SeqTrainer`` of transformers.

>>> loss = TrainerLoss(LaboLoss(tau=1.25), warmup_steps=int(0.05 * total_updates))
>>> trainer = Seq2SeqTrainer(..., compute_loss_func=loss, callbacks=[loss])
"""

import copy
import logging
from typing import Any, Optional, Union

import torch
from torch import Tensor
from transformers import LogitsProcessor, TrainerCallback

from ..losses import LaboLoss, LinearLaboLoss
from ..losses.warmup import describe_long_warmup

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

    In evaluation it is the cross-entropy, whatever ``loss`` is: its exponential is a perplexity. It rises where the
    warm-up ends, since LABO makes a model less confident, so the best model is better chosen by another metric.

    Args:
        loss: copied; its ``ignore_index`` is −100; its ``reduction`` is not used.
        warmup_steps: optimizer updates of label smoothing, for a ``loss`` that was made without; a resumed training
            goes on where it was.
        shift_labels: whether the label of a token is the next one. By default it is for models that generate
            and have no encoder (decoder-only language models).

    Raises:
        ValueError: the loss or an option of it does not suit, or, once training begins, the object is not among the
            callbacks, a batch has no labels, or nothing for the decoder to begin from.
    """

    def __init__(self, loss: LaboLoss, warmup_steps: Optional[int] = None, shift_labels: Optional[bool] = None) -> None:
        if not isinstance(loss, LaboLoss) or isinstance(loss, LinearLaboLoss):
            raise ValueError(f"loss must be a LaboLoss, for the models give logits, got {type(loss).__name__}")
        if loss.ignore_index != _IGNORED:
            raise ValueError(f"ignore_index must be -100, which transformers pads with, got {loss.ignore_index}")
        self.loss = copy.deepcopy(loss)
        self.loss.reduction = "mean"
        if warmup_steps is not None:
            self.loss.warmup_steps = warmup_steps
        self.loss.set_updates(0)
        self._cross_entropy = LaboLoss(alpha=0.0, ignore_index=_IGNORED)
        self.shift_labels = self._given_shift = shift_labels
        self._model: Optional[torch.nn.Module] = None
        self._input_check: Any = None

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
        """The trainer is ready: check its options, learn what the model is."""
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
        if args.world_size > 1 and not getattr(args, "average_tokens_across_devices", False):
            logger.warning(
                "average_tokens_across_devices is off: each of the %s processes divides by its own tokens, and their "
                "number changes the training",
                args.world_size,
            )
        by_loss = args.load_best_model_at_end and args.metric_for_best_model in ("loss", "eval_loss")
        if by_loss and self.loss.warmup_steps:
            logger.warning(
                "the best model goes by eval_loss, the cross-entropy, which rises where the smoothing warm-up ends and "
                "LABO begins: the best may be a model of the warm-up. Choose another metric_for_best_model, such as "
                "BLEU or the accuracy, which compute_metrics returns"
            )
        self._watch(kwargs["model"])

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A training begins or goes on."""
        self._watch(kwargs["model"])  # that of on_init_end is gone where the trainer has model_init
        self.loss.set_updates(state.global_step)
        too_long = describe_long_warmup("LABO", "warmup_steps=", self.loss.warmup_steps, state.max_steps)
        if too_long:
            logger.warning("%s", too_long)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A training is over: others may call the model as they like."""
        self._stop_input_check()

    def _watch(self, model: torch.nn.Module) -> None:
        """Let ``model`` be the one whose mode says whether a loss is for training."""
        self._stop_input_check()
        self._model = model
        wrapped: Any = model  # in PEFT's adapters, perhaps
        base = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped
        has_encoder = getattr(getattr(base, "config", None), "is_encoder_decoder", False)
        generates = hasattr(base, "can_generate") and base.can_generate()
        if self._given_shift is None:  # of this model: another trainer, with the same loss, may have had another kind
            self.shift_labels = generates and not has_encoder
        if has_encoder and generates:
            self._input_check = base.register_forward_pre_hook(_check_decoder_input, with_kwargs=True)

    def _stop_input_check(self) -> None:
        if self._input_check is not None:
            self._input_check.remove()
            self._input_check = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An optimizer update was made."""
        self.loss.set_updates(state.global_step)


class PosteriorLogits(LogitsProcessor):
    """Lets ``generate`` search with calibrated probabilities.

    >>> model.generate(..., logits_processor=LogitsProcessorList([PosteriorLogits(loss)]))

    Args:
        loss: what the model was trained with: the :class:`TrainerLoss`, which knows whether its warm-up is over, or a
            ``LaboLoss`` without one (that of a :class:`TrainerLoss` is copied, and counts no updates itself).
    """

    def __init__(self, loss: Union[LaboLoss, TrainerLoss]) -> None:
        self.loss = loss.loss if isinstance(loss, TrainerLoss) else loss
        if self.loss.warmup_steps and not self.loss.updates:
            logger.warning(
                "PosteriorLogits: the loss has made none of its %s updates of smoothing warm-up, so the posterior is "
                "that of label smoothing. Give it the TrainerLoss of the training, or a LaboLoss without warm-up",
                self.loss.warmup_steps,
            )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """log y of the scores (hypotheses, K), which are logits or log-probabilities."""
        return self.loss.log_posterior(scores)


def _check_decoder_input(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
    names = ("decoder_input_ids", "decoder_inputs_embeds", "labels")
    if all(kwargs.get(name) is None for name in names):
        raise ValueError(_MISSING_DECODER_INPUT)

"""What the criterions share: options, masking, warm-up, logging."""

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

import torch
from fairseq import utils
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.logging import metrics
from torch import Tensor

from .updates import UpdateCounter

#: logged in bits, as fairseq does with its losses
_IN_NATS = ("entropy",)


@dataclass
class RegularisedConfig(LabelSmoothedCrossEntropyCriterionConfig):
    label_smoothing: float = field(
        default=0.1,
        metadata={"help": "epsilon of the uniform label smoothing used during the smoothing warm-up"},
    )
    smoothing_warmup_steps: int = field(
        default=0,
        metadata={"help": "optimizer updates trained with uniform label smoothing before this loss takes over"},
    )


def check_smoothing(cfg: Any) -> None:
    """ValueError names the first option that fairseq's label smoothing shares with ours and that is out of range."""
    if not 0 <= getattr(cfg, "label_smoothing", 0) < 1:
        raise ValueError(f"label-smoothing is {cfg.label_smoothing}: it must lie in [0, 1)")
    for name in ("smoothing_warmup_steps", "ignore_prefix_size"):
        if getattr(cfg, name, 0) < 0:
            raise ValueError(f"{name.replace('_', '-')} is {getattr(cfg, name)}: it must be 0 or more")


class RegularisedCriterion(LabelSmoothedCrossEntropyCriterion):
    """Uniform label smoothing for ``--smoothing-warmup-steps`` updates, then the loss of a subclass.

    The warm-up is fairseq's own criterion, inherited. Validation computes the objective of the update just
    made; a model that is only evaluated (``fairseq-validate``) counts as past its warm-up.
    """

    #: what error messages begin with
    name: str
    #: fields of the terms whose means over the tokens are logged, once the warm-up is past
    watched: Tuple[str, ...] = ("entropy",)

    def __init__(self, cfg: Any, task: Any) -> None:
        with self.one_line_errors():
            self.check(cfg)
        super().__init__(task, cfg.sentence_avg, cfg.label_smoothing, cfg.ignore_prefix_size, cfg.report_accuracy)
        self.cfg = cfg
        self.updates = UpdateCounter(task, self.stop_where_not_finite)

    @classmethod
    def check(cls, cfg: Any) -> None:
        """ValueError, which begins with the name of the option, where one is out of range."""
        check_smoothing(cfg)

    @classmethod
    @contextmanager
    def one_line_errors(cls) -> Iterator[None]:
        """End the program with one line where an option is wrong: fairseq would print a traceback."""
        try:
            yield
        except ValueError as error:
            raise SystemExit(f"{cls.name}: --{error}") from None

    def stop_where_not_finite(self, loss: Tensor) -> None:
        """End the program at a loss that is NaN or infinite, before its gradient reaches a parameter.

        The loss is not scaled yet: a loss scale that is too large overflows the gradient alone, which fairseq mends.
        """
        if not torch.isfinite(loss).all():
            update = self.updates.num_updates + 1
            raise SystemExit(
                f"{self.name}: the loss of update {update} is {loss.sum().item()}: NaN or inf in the "
                "logits, the model has diverged. Go on from the last checkpoint with a lower --lr, more "
                "--warmup-updates or a smaller --clip-norm; instead of --fp16, whose numbers end at 65504, with --bf16"
            )

    def get_terms(self, logits: Tensor, target: Tensor, sample: Dict[str, Any]) -> NamedTuple:
        """``loss``, ``nll`` and what is watched, (tokens,) each, 0 where the target is padding; logits: (tokens, K)."""
        raise NotImplementedError

    @property
    def warming_up(self) -> bool:
        done = self.updates.num_updates
        return done is not None and done < self.cfg.smoothing_warmup_steps

    def forward(self, model: Any, sample: Dict[str, Any], reduce: bool = True) -> Tuple[Tensor, int, Dict[str, Any]]:
        """Loss of a batch (summed, or (tokens, 1) if not ``reduce``), its sample size and what to log."""
        if self.warming_up:
            return super().forward(model, sample, reduce=reduce)
        net_output = model(**sample["net_input"])
        logits, target = self.get_output_and_target(model, net_output, sample)
        terms = self.get_terms(logits, target, sample)
        return self.summarise(terms, target, sample, reduce, lambda: logits.argmax(-1))

    def summarise(
        self, terms: Any, target: Tensor, sample: Dict[str, Any], reduce: bool, likeliest: Callable[[], Tensor]
    ) -> Tuple[Tensor, int, Dict[str, Any]]:
        """What :meth:`forward` returns of the terms; ``likeliest`` gives the class (tokens,) that the model would."""
        loss = terms.loss.sum() if reduce else terms.loss.unsqueeze(-1)
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        mask = target.ne(self.padding_idx)
        logging_output = {
            "loss": loss.data,
            "nll_loss": terms.nll.sum() if reduce else terms.nll.unsqueeze(-1),
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": sample_size,
        }
        if not self.warming_up:
            logging_output["watched_ntokens"] = mask.sum()
            for name in self.watched:
                logging_output[name] = getattr(terms, name).sum()
        if self.report_accuracy:
            logging_output["n_correct"] = utils.item(likeliest().eq(target).logical_and(mask).sum())
            logging_output["total"] = utils.item(mask.sum())
        return loss, sample_size, logging_output

    def get_output_and_target(self, model: Any, net_output: Any, sample: Dict[str, Any]) -> Tuple[Tensor, Tensor]:
        """Rows of the model's output and targets (tokens,) without the ignored prefix; padding is still in both."""
        if getattr(getattr(model, "decoder", None), "adaptive_softmax", None) is not None:
            raise SystemExit(
                f"{self.name}: this model has an adaptive softmax, which gives no logits over the whole vocabulary; "
                "train it without --adaptive-softmax-cutoff, or with --criterion adaptive_loss"
            )
        output = net_output if torch.is_tensor(net_output) else net_output[0]
        return self.without_prefix(output), self.without_prefix(model.get_targets(sample, net_output))

    def without_prefix(self, tensor: Tensor) -> Tensor:
        """(sentences, positions, …) as (tokens, …), less the first ``--ignore-prefix-size`` positions."""
        return tensor[:, self.ignore_prefix_size :].flatten(0, 1)

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """What fairseq's label smoothing logs, and the means of what is watched, entropies in bits."""
        super().reduce_metrics(logging_outputs)
        n = sum(log.get("watched_ntokens", 0) for log in logging_outputs)
        if n > 0:
            for name in cls.watched:
                mean = sum(log.get(name, 0) for log in logging_outputs) / n
                metrics.log_scalar(name, mean / math.log(2) if name in _IN_NATS else mean, n, round=3)

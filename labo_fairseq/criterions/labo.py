"""The criterion ``labo_label_smoothed_cross_entropy``, alias ``labo``."""

import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import torch
from fairseq import utils
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.logging import metrics
from torch import Tensor, nn

from ..losses.labo import LaboTerms, check_options, labo_terms
from ..losses.linear import linear_argmax, linear_labo_terms, linear_smoothed_terms
from .projection import FusedProjection
from .updates import UpdateCounter

#: mean over the tokens whose label came from P*: absent while the warm-up lasts
_WATCHED = ("alpha", "entropy", "p_star")


@dataclass
class LaboConfig(LabelSmoothedCrossEntropyCriterionConfig):
    label_smoothing: float = field(
        default=0.1,
        metadata={"help": "epsilon of the uniform label smoothing used during the smoothing warm-up"},
    )
    tau: float = field(
        default=1.25,
        metadata={"help": "temperature tau = beta/alpha of the smoothing distribution; the paper tries 1.15 and 1.25"},
    )
    alpha: str = field(
        default="adaptive",
        metadata={"help": "smoothing mass: 'adaptive' (Eq. 16, one value a token) or a number in [0, 1]"},
    )
    rho: float = field(
        default=0.5,
        metadata={"help": "rho in [0.5, 1] of the adaptive alpha = 1 - rho * H(p) / log K"},
    )
    smoothing_warmup_steps: int = field(
        default=5000,
        metadata={
            "help": "optimizer updates trained with uniform label smoothing before LABO's labels take over "
            "(paper: 5000, WMT 10000)"
        },
    )
    fused_projection: bool = field(
        default=False,
        metadata={
            "help": "project to the vocabulary inside the loss, a chunk of tokens at a time, so that the logits are "
            "never whole in memory (fairseq's Transformers; other models train as without it)"
        },
    )


@register_criterion("labo_label_smoothed_cross_entropy", dataclass=LaboConfig)
class LaboLabelSmoothedCrossEntropyCriterion(LabelSmoothedCrossEntropyCriterion):
    """Uniform label smoothing for ``--smoothing-warmup-steps`` updates, then LABO (Algorithm 1).

    The warm-up is fairseq's own criterion, inherited; with ``--fused-projection`` it is the same loss in chunks,
    equal but for rounding. Validation computes the objective of the update just
    made; a model that is only evaluated (``fairseq-validate``) counts as past its warm-up.
    """

    def __init__(self, cfg: LaboConfig, task: Any) -> None:
        _check(cfg)
        super().__init__(task, cfg.sentence_avg, cfg.label_smoothing, cfg.ignore_prefix_size, cfg.report_accuracy)
        self.cfg = cfg
        self.updates = UpdateCounter(task)
        self.projection = FusedProjection() if cfg.fused_projection else None

    @property
    def warming_up(self) -> bool:
        done = self.updates.num_updates
        return done is not None and done < self.cfg.smoothing_warmup_steps

    def forward(self, model: Any, sample: Dict[str, Any], reduce: bool = True) -> Tuple[Tensor, int, Dict[str, Any]]:
        """Loss of a batch (summed, or (tokens, 1) if not ``reduce``), its sample size and what to log."""
        layer = None if self.projection is None else self.projection(model)
        if self.warming_up and layer is None:
            return super().forward(model, sample, reduce=reduce)
        net_output = model(**sample["net_input"], **({} if layer is None else {"features_only": True}))
        output, target = self.get_output_and_target(model, net_output, sample)
        terms = self.get_terms(output, target, layer)
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
            logging_output["labo_ntokens"] = mask.sum()
            for name in _WATCHED:
                logging_output[name] = getattr(terms, name).sum()
        if self.report_accuracy:
            best = output.argmax(-1) if layer is None else linear_argmax(output, layer.weight, layer.bias)
            logging_output["n_correct"] = utils.item(best.eq(target).logical_and(mask).sum())
            logging_output["total"] = utils.item(mask.sum())
        return loss, sample_size, logging_output

    def get_terms(self, output: Tensor, target: Tensor, layer: Optional[nn.Linear]) -> LaboTerms:
        """The terms of logits (tokens, K), or of the features (tokens, D) that ``layer`` would make into logits."""
        options = (self.cfg.tau, self.cfg.alpha, self.cfg.rho, self.padding_idx)
        if layer is None:
            return labo_terms(output, target, *options)
        if self.warming_up:
            return linear_smoothed_terms(output, layer.weight, target, self.eps, self.padding_idx, layer.bias)
        return linear_labo_terms(output, layer.weight, target, *options, layer.bias)

    def get_output_and_target(self, model: Any, net_output: Any, sample: Dict[str, Any]) -> Tuple[Tensor, Tensor]:
        """Rows of the model's output and targets (tokens,) without the ignored prefix; padding is still in both."""
        if getattr(getattr(model, "decoder", None), "adaptive_softmax", None) is not None:
            raise SystemExit(
                "labo: this model has an adaptive softmax, which gives no logits over the whole vocabulary; "
                "train it without --adaptive-softmax-cutoff, or with --criterion adaptive_loss"
            )
        output = net_output if torch.is_tensor(net_output) else net_output[0]
        target = model.get_targets(sample, net_output)
        if self.ignore_prefix_size > 0:
            output = output[:, self.ignore_prefix_size :]
            target = target[:, self.ignore_prefix_size :]
        return output.reshape(-1, output.size(-1)), target.reshape(-1)

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """What fairseq's label smoothing logs, and the means of α, H(p) (bits) and P*(target)."""
        super().reduce_metrics(logging_outputs)
        n = sum(log.get("labo_ntokens", 0) for log in logging_outputs)
        if n > 0:
            alpha, entropy, p_star = (sum(log.get(name, 0) for log in logging_outputs) / n for name in _WATCHED)
            metrics.log_scalar("alpha", alpha, n, round=3)
            metrics.log_scalar("entropy", entropy / math.log(2), n, round=3)
            metrics.log_scalar("p_star", p_star, n, round=3)


@register_criterion("labo", dataclass=LaboConfig)
class LaboCriterion(LaboLabelSmoothedCrossEntropyCriterion):
    """``--criterion labo``: the short name of ``labo_label_smoothed_cross_entropy``."""


def _check(cfg: LaboConfig) -> None:
    """End the program with one line where an option is out of range: fairseq would print a traceback."""
    try:
        check_options(cfg.tau, cfg.alpha, cfg.rho)
        if not 0 <= cfg.label_smoothing < 1:
            raise ValueError(f"label-smoothing is {cfg.label_smoothing}: it must lie in [0, 1)")
        for name in ("smoothing_warmup_steps", "ignore_prefix_size"):
            if getattr(cfg, name) < 0:
                raise ValueError(f"{name.replace('_', '-')} is {getattr(cfg, name)}: it must be 0 or more")
    except ValueError as error:
        raise SystemExit(f"labo: --{error}") from None

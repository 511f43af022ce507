"""The criterion ``labo_label_smoothed_cross_entropy``, alias ``labo``."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, ClassVar, Dict, Tuple

from fairseq.criterions import register_criterion
from torch import Tensor

from ..losses.blockwise import Quantity
from ..losses.fused_linear import linear_argmax, linear_labo_terms_with, linear_smoothed_terms
from ..losses.labo import LaboOptions, LaboTerms, labo_log_posterior_with, labo_terms_with
from .base import ENTROPY, RegularizedConfig, RegularizedCriterion
from .fused_projection import FusedProjection


@dataclass
class LaboConfig(RegularizedConfig):
    tau: float = field(
        default=1.25,
        metadata={"help": "temperature tau = beta/alpha of the smoothing distribution; the paper tries 1.15 and 1.25"},
    )
    alpha: str = field(
        default="adaptive",
        metadata={"help": "smoothing mass: 'adaptive' (Eq. 16, one value per token) or a number in [0, 1]"},
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
class LaboLabelSmoothedCrossEntropyCriterion(RegularizedCriterion):
    """Uniform label smoothing for ``--smoothing-warmup-steps`` updates, then LABO (Algorithm 1).

    With ``--fused-projection`` the loss of the warm-up is made in chunks too, equal to fairseq's but for rounding.
    """

    name = "labo"
    watched: ClassVar[Dict[str, Quantity]] = {
        "alpha": Quantity("smoothing mass α"),
        "entropy": ENTROPY,
        "p_star": Quantity("P*(target)"),
    }

    def __init__(self, cfg: LaboConfig, task: Any) -> None:
        super().__init__(cfg, task)
        self.options = LaboOptions(cfg.tau, cfg.alpha, cfg.rho)
        self.projection = FusedProjection() if cfg.fused_projection else None

    @classmethod
    def check(cls, cfg: LaboConfig) -> None:
        super().check(cfg)
        LaboOptions(cfg.tau, cfg.alpha, cfg.rho)

    def forward(self, model: Any, sample: Dict[str, Any], reduce: bool = True) -> Tuple[Tensor, int, Dict[str, Any]]:
        layer = None if self.projection is None else self.projection(model)
        if layer is None:
            return super().forward(model, sample, reduce=reduce)
        net_output = model(**sample["net_input"], features_only=True)
        hidden, target = self.get_output_and_target(model, net_output, sample)
        if self.warming_up:
            terms = linear_smoothed_terms(hidden, layer.weight, target, self.eps, self.padding_idx, layer.bias)
        else:
            projection = (hidden, layer.weight, target, self.padding_idx, layer.bias)
            terms = linear_labo_terms_with(self.options, *projection)
        return self.summarize(terms, target, sample, reduce, lambda: linear_argmax(hidden, layer.weight, layer.bias))

    @staticmethod
    def log_posterior(cfg: LaboConfig) -> Callable[[Tensor], Tensor]:
        return partial(labo_log_posterior_with, LaboOptions(cfg.tau, cfg.alpha, cfg.rho))

    def get_terms(self, logits: Tensor, target: Tensor, sample: Dict[str, Any]) -> LaboTerms:
        return labo_terms_with(self.options, logits, target, self.padding_idx)


@register_criterion("labo", dataclass=LaboConfig)
class LaboCriterion(LaboLabelSmoothedCrossEntropyCriterion):
    """``--criterion labo``: the short name of ``labo_label_smoothed_cross_entropy``."""


# fairseq resumes a training where the names of the classes match, and these two are one criterion
LaboLabelSmoothedCrossEntropyCriterion.__name__ = LaboCriterion.__name__

"""The criterion ``labo_label_smoothed_cross_entropy``, alias ``labo``."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, ClassVar, Dict

from fairseq.criterions import register_criterion
from torch import Tensor

from ..losses.blockwise import Quantity
from ..losses.label_smoothing import smoothing_over_others
from ..losses.labo import LaboOptions, Objective, labo_log_posterior_with
from .base import ENTROPY
from .fused_projection import ProjectingConfig, ProjectingCriterion


@dataclass
class LaboConfig(ProjectingConfig):
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


@register_criterion("labo_label_smoothed_cross_entropy", dataclass=LaboConfig)
class LaboLabelSmoothedCrossEntropyCriterion(ProjectingCriterion):
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

    @classmethod
    def check(cls, cfg: LaboConfig) -> None:
        super().check(cfg)
        LaboOptions(cfg.tau, cfg.alpha, cfg.rho)

    def objective(self, k: int) -> Objective:
        return smoothing_over_others(self.eps, k) if self.warming_up else self.options

    @staticmethod
    def log_posterior(cfg: LaboConfig) -> Callable[[Tensor], Tensor]:
        return partial(labo_log_posterior_with, LaboOptions(cfg.tau, cfg.alpha, cfg.rho))


@register_criterion("labo", dataclass=LaboConfig)
class LaboCriterion(LaboLabelSmoothedCrossEntropyCriterion):
    """``--criterion labo``: the short name of ``labo_label_smoothed_cross_entropy``."""


# fairseq resumes a training where the names of the classes match, and these two are one criterion
LaboLabelSmoothedCrossEntropyCriterion.__name__ = LaboCriterion.__name__

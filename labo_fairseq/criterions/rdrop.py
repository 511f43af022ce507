"""The criterion ``rdrop``: R-Drop with fairseq's label smoothing or, where ε is 0, cross-entropy, as published."""

from dataclasses import dataclass, field
from functools import partial
from typing import Callable

from fairseq.criterions import register_criterion
from torch import Tensor

from ..losses.label_smoothing import smoothing_over_others
from ..losses.labo import Objective
from .fused_projection import ProjectingConfig, ProjectingCriterion
from .posterior import smoothed_log_posterior


@dataclass
class RDropConfig(ProjectingConfig):
    label_smoothing: float = field(
        default=0.1,
        metadata={"help": "epsilon of the uniform label smoothing; 0 is cross-entropy"},
    )
    rdrop_alpha: float = field(
        default=5.0,
        metadata={**ProjectingConfig.__dataclass_fields__["rdrop_alpha"].metadata},
    )


@register_criterion("rdrop", dataclass=RDropConfig)
class RDropCriterion(ProjectingCriterion):
    """fairseq's label smoothing in both passes (Wu et al., 2021); LABO and the baselines have ``--rdrop-alpha`` too."""

    name = "rdrop"

    @staticmethod
    def log_posterior(cfg: RDropConfig) -> Callable[[Tensor], Tensor]:
        return partial(smoothed_log_posterior, label_smoothing=cfg.label_smoothing)

    @classmethod
    def check(cls, cfg: RDropConfig) -> None:
        super().check(cfg)
        if cfg.smoothing_warmup_steps:
            raise ValueError(
                "smoothing-warmup-steps must be 0, for this criterion is label smoothing from the first update, got "
                f"{cfg.smoothing_warmup_steps}"
            )

    def objective(self, k: int) -> Objective:
        return smoothing_over_others(self.eps, k)

"""The criterions ``focal_loss`` and ``anti_focal_loss``."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Dict

from fairseq.criterions import register_criterion
from torch import Tensor

from ..losses.blockwise import TokenTerms, check_not_negative
from ..losses.focal import anti_focal_log_posterior, anti_focal_terms, focal_log_posterior, focal_terms
from .base import RegularizedConfig, RegularizedCriterion


@dataclass
class FocalLossConfig(RegularizedConfig):
    gamma: float = field(
        default=2.0,
        metadata={"help": "gamma of the weight (1 - p)^gamma on a word of probability p"},
    )


@register_criterion("focal_loss", dataclass=FocalLossConfig)
class FocalLossCriterion(RegularizedCriterion):
    """Cross-entropy with less weight on what is learned already (Lin et al., 2017)."""

    name = "focal_loss"

    @classmethod
    def check(cls, cfg: FocalLossConfig) -> None:
        super().check(cfg)
        check_not_negative("gamma", cfg.gamma)

    @staticmethod
    def log_posterior(cfg: FocalLossConfig) -> Callable[[Tensor], Tensor]:
        return partial(focal_log_posterior, gamma=cfg.gamma)

    def get_terms(self, logits: Tensor, target: Tensor, sample: Dict[str, Any]) -> TokenTerms:
        return focal_terms(logits, target, self.cfg.gamma, self.padding_idx)


@dataclass
class AntiFocalLossConfig(RegularizedConfig):
    alpha: float = field(
        default=0.5,
        metadata={"help": "alpha of the weight (1 + alpha * p)^gamma on a word of probability p"},
    )
    gamma: float = field(
        default=1.0,
        metadata={"help": "gamma of the weight (1 + alpha * p)^gamma on a word of probability p"},
    )


@register_criterion("anti_focal_loss", dataclass=AntiFocalLossConfig)
class AntiFocalLossCriterion(RegularizedCriterion):
    """Cross-entropy with more weight on what is learned already (Raunak et al., 2020)."""

    name = "anti_focal_loss"

    @classmethod
    def check(cls, cfg: AntiFocalLossConfig) -> None:
        super().check(cfg)
        check_not_negative("alpha", cfg.alpha)
        check_not_negative("gamma", cfg.gamma)

    @staticmethod
    def log_posterior(cfg: AntiFocalLossConfig) -> Callable[[Tensor], Tensor]:
        return partial(anti_focal_log_posterior, alpha=cfg.alpha, gamma=cfg.gamma)

    def get_terms(self, logits: Tensor, target: Tensor, sample: Dict[str, Any]) -> TokenTerms:
        return anti_focal_terms(logits, target, self.cfg.alpha, self.cfg.gamma, self.padding_idx)

"""The criterion ``confidence_penalty``."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Dict

from fairseq.criterions import register_criterion
from torch import Tensor

from ..losses.blockwise import TokenTerms, check_not_negative
from ..losses.confidence_penalty import confidence_penalty_log_posterior, confidence_penalty_terms
from .base import RegularizedConfig, RegularizedCriterion


@dataclass
class ConfidencePenaltyConfig(RegularizedConfig):
    beta: float = field(
        default=0.1,
        metadata={"help": "weight beta of the entropy that is taken from the cross-entropy (Eq. 2)"},
    )


@register_criterion("confidence_penalty", dataclass=ConfidencePenaltyConfig)
class ConfidencePenaltyCriterion(RegularizedCriterion):
    """Cross-entropy less β times the entropy of the prediction (Pereyra et al., 2017; Eq. 2)."""

    name = "confidence_penalty"

    @classmethod
    def check(cls, cfg: ConfidencePenaltyConfig) -> None:
        super().check(cfg)
        check_not_negative("beta", cfg.beta)

    @staticmethod
    def log_posterior(cfg: ConfidencePenaltyConfig) -> Callable[[Tensor], Tensor]:
        return partial(confidence_penalty_log_posterior, beta=cfg.beta)

    def get_terms(self, logits: Tensor, target: Tensor, sample: Dict[str, Any]) -> TokenTerms:
        return confidence_penalty_terms(logits, target, self.cfg.beta, self.padding_idx)

"""Criterions whose objective is LABO's or a case of it, which can project to the vocabulary by themselves."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Dict, Tuple

from torch import Tensor

from ..losses.fused_linear import linear_argmax, linear_labo_terms_with
from ..losses.labo import LaboOptions, LaboTerms, labo_terms_with
from ..losses.rdrop import linear_rdrop_terms
from .base import RegularizedConfig, RegularizedCriterion
from .fused_projection import FusedProjection


@dataclass
class ProjectingConfig(RegularizedConfig):
    fused_projection: bool = field(
        default=False,
        metadata={
            "help": "project to the vocabulary inside the loss, a chunk of tokens at a time, so that the logits are "
            "never whole in memory (fairseq's Transformers; other models train as without it)"
        },
    )


class ProjectingCriterion(RegularizedCriterion):
    """With ``--fused-projection`` the loss is made in chunks, in the warm-up and after it, equal but for rounding."""

    def __init__(self, cfg: Any, task: Any) -> None:
        super().__init__(cfg, task)
        self.projection = FusedProjection() if cfg.fused_projection else None

    def objective(self, k: int) -> LaboOptions:
        """The options of the update that is being made, in a vocabulary of size ``k``."""
        raise NotImplementedError

    def forward(self, model: Any, sample: Dict[str, Any], reduce: bool = True) -> Tuple[Tensor, int, Dict[str, Any]]:
        layer = None if self.projection is None else self.projection(model)
        if layer is None:
            return super().forward(model, sample, reduce=reduce)
        if self.rdrop_alpha:
            net_output, given = self.predict_twice(model, sample, features_only=True)
        else:
            net_output, given = model(**sample["net_input"], features_only=True), sample
        hidden, target = self.get_output_and_target(model, net_output, given)
        if self.rdrop_alpha:
            target = target[: len(target) // 2]
        options = self.objective(layer.weight.size(0))
        projection = (hidden, layer.weight, target, self.padding_idx, layer.bias)
        if self.rdrop_alpha:
            summarize = partial(self.summarize_twice, *linear_rdrop_terms(options, self.rdrop_alpha, *projection))
        else:
            summarize = partial(self.summarize, linear_labo_terms_with(options, *projection))
        first = hidden[: len(target)]
        return summarize(target, sample, reduce, lambda: linear_argmax(first, layer.weight, layer.bias))

    def get_terms(self, logits: Tensor, target: Tensor, sample: Dict[str, Any]) -> LaboTerms:
        return labo_terms_with(self.objective(logits.size(-1)), logits, target, self.padding_idx)

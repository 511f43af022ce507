"""``--fused-projection``: criterions that project to the vocabulary by themselves, a chunk of tokens at a time.

That is so for objectives which are LABO's or a case of it, and for models that leave their last layer to the loss.
"""

import inspect
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Dict, Optional, Tuple

from fairseq.distributed import LegacyDistributedDataParallel, ModuleProxyWrapper
from fairseq.models.transformer import TransformerDecoderBase
from torch import Tensor, nn

from ..fairseq_patches.command_line import as_written
from ..losses.fused_linear import linear_argmax, linear_labo_terms_with
from ..losses.labo import LaboTerms, Objective, labo_terms_with
from ..losses.rdrop import linear_rdrop_terms
from .base import RegularizedConfig, RegularizedCriterion

logger = logging.getLogger(__name__)

#: wrappers that leave the parameters of the model whole, and take gradients that reach them from outside it
_TRANSPARENT = (nn.parallel.DistributedDataParallel, LegacyDistributedDataParallel, ModuleProxyWrapper)


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

    def objective(self, k: int) -> Objective:
        """The options of the update that is being made, in a vocabulary of size ``k``."""
        raise NotImplementedError

    def forward(self, model: Any, sample: Dict[str, Any], reduce: bool = True) -> Tuple[Tensor, int, Dict[str, Any]]:
        layer = None if self.projection is None else self.projection(model)
        if layer is None:
            return super().forward(model, sample, reduce=reduce)
        if self.rdrop_alpha:
            return self._forward_twice_fused(layer, model, sample, reduce)
        hidden, target = self.get_output_and_target(model, model(**sample["net_input"], features_only=True), sample)
        objective = self.objective(layer.weight.size(0))
        terms = linear_labo_terms_with(objective, hidden, layer.weight, target, self.padding_idx, layer.bias)
        return self.summarize(terms, target, sample, reduce, partial(linear_argmax, hidden, layer.weight, layer.bias))

    def _forward_twice_fused(
        self, layer: nn.Linear, model: Any, sample: Dict[str, Any], reduce: bool
    ) -> Tuple[Tensor, int, Dict[str, Any]]:
        """:meth:`forward` with R-Drop."""
        net_output, passes = self.predict_twice(model, sample, features_only=True)
        hidden, target = self.get_output_and_target(model, net_output, passes)
        target = target[: len(target) // 2]
        terms, divergence = linear_rdrop_terms(
            self.objective(layer.weight.size(0)),
            *(self.rdrop_alpha, hidden, layer.weight, target, self.padding_idx, layer.bias),
        )
        first = hidden[: len(target)]
        likeliest = partial(linear_argmax, first, layer.weight, layer.bias)
        return self.summarize_twice(terms, divergence, target, sample, reduce, likeliest)

    def get_terms(self, logits: Tensor, target: Tensor, sample: Dict[str, Any]) -> LaboTerms:
        return labo_terms_with(self.objective(logits.size(-1)), logits, target, self.padding_idx)


class CannotFuseError(Exception):
    """This model must project by itself; the message says why."""


class FusedProjection:
    """Finds the projection of the models that it is given; says once, in the log, if one has none to give."""

    def __init__(self) -> None:
        self._refused = False

    def __call__(self, model: Any) -> Optional[nn.Linear]:
        """The projection, or None where the model must do it itself."""
        if self._refused:
            return None
        try:
            return output_projection(model)
        except CannotFuseError as reason:
            self._refused = True
            logger.warning(as_written(f"--fused-projection has no effect: {reason}"))
            return None


def output_projection(model: Any) -> nn.Linear:
    """The layer that ``model(..., features_only=True)`` leaves out.

    Raises:
        CannotFuseError: the model is none of fairseq's Transformers, or its wrapper wants the layer for itself.
    """
    finds_unused = False
    while hasattr(model, "module"):
        if not isinstance(model, _TRANSPARENT):
            raise CannotFuseError(f"{type(model).__name__} does not leave parameters whole outside the model")
        finds_unused = getattr(model, "find_unused_parameters", False)
        model = model.module
    decoder: Any = getattr(model, "decoder", None)
    own = (TransformerDecoderBase.forward, TransformerDecoderBase.output_layer)
    if (getattr(type(decoder), "forward", None), getattr(type(decoder), "output_layer", None)) != own:
        raise CannotFuseError(f"the decoder of {type(model).__name__} is not that of fairseq's Transformer")
    if "get_normalized_probs" in vars(model):
        raise CannotFuseError(
            f"{type(model).__name__} has been told to give other probabilities than those of its logits"
        )
    if "features_only" not in inspect.signature(model.forward).parameters:
        raise CannotFuseError(f"{type(model).__name__} does not give its features alone")
    layer = decoder.output_projection
    if type(layer) is not nn.Linear or layer._forward_hooks or layer._forward_pre_hooks:
        raise CannotFuseError(f"the output projection of {type(model).__name__} is not a plain linear layer")
    if finds_unused and (layer.weight is not decoder.embed_tokens.weight or layer.bias is not None):
        raise CannotFuseError("--find-unused-parameters would take a projection of its own weight for unused")
    return layer

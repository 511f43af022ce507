"""The layer of a fairseq model that projects to the vocabulary, where a loss may do its work."""

import inspect
import logging
from typing import Any, Optional

from fairseq.distributed import LegacyDistributedDataParallel, ModuleProxyWrapper
from fairseq.models.transformer import TransformerDecoderBase
from torch import nn

logger = logging.getLogger(__name__)

#: wrappers that leave the parameters of the model whole, and take gradients that reach them from outside it
_TRANSPARENT = (nn.parallel.DistributedDataParallel, LegacyDistributedDataParallel, ModuleProxyWrapper)


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
            logger.warning("--fused-projection has no effect: %s", reason)
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

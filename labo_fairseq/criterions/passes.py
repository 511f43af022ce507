"""A batch twice in one forward pass, so that dropout makes two predictions of each token."""

from typing import Any, Dict

import torch
from torch import Tensor


def two_passes(sample: Dict[str, Any]) -> Dict[str, Any]:
    """A batch of fairseq's with all its sentences, and then all of them again.

    What belongs to sentences is in ``net_input`` and ``target``; the rest, such as ``ntokens``, stays that of one pass.
    Tensors are doubled along their first dimension, which must be that of the sentences; so are those in lists, tuples
    and dictionaries, and lists with something else for every sentence. Single values, the same for all, stay.

    Raises:
        ValueError: the batch has a tensor of another size; the message names it.
    """
    sentences = len(sample["target"])
    net_input = {name: _twice(value, sentences, name) for name, value in sample["net_input"].items()}
    return {**sample, "net_input": net_input, "target": _twice(sample["target"], sentences, "target")}


def _twice(value: Any, sentences: int, name: str) -> Any:
    if isinstance(value, Tensor):
        if value.dim() == 0:
            return value
        if len(value) != sentences:
            raise ValueError(
                f"rdrop-alpha needs every batch twice, and {name} of shape {tuple(value.shape)} does not begin with "
                f"the dimension of its {sentences} sentences: leave the option out for this task"
            )
        return torch.cat((value, value))
    if isinstance(value, dict):
        return {key: _twice(part, sentences, f"{name}[{key!r}]") for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        if len(value) == sentences and not any(isinstance(part, (Tensor, list, tuple, dict)) for part in value):
            return type(value)((*value, *value))
        parts = [_twice(part, sentences, f"{name}[{number}]") for number, part in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value

"""What a model says of every token of the right translation, given those before it (teacher forcing)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_ROWS = 1024  # of logits at a time: temporaries stay small beside a batch


class Predictions(NamedTuple):
    """One entry a target token, float64 but for ``correct``."""

    probability: np.ndarray  # p_k of the token that is right
    confidence: np.ndarray  # the largest probability
    correct: np.ndarray  # bool: whether the right token has it
    entropy: np.ndarray  # H(p), in bits


def predictions(logits: Tensor, target: Tensor) -> Predictions:
    """Predictions of ``softmax(logits)`` for ``target``; sums are taken in float32, in float64 for float64.

    Args:
        logits: (N, K), on any device. ``-inf`` masks a class.
        target: (N,), int64, class indices.
    """
    blocks = [_block(*rows) for rows in zip(logits.split(_ROWS), target.split(_ROWS))]
    return join(blocks)


def join(parts) -> Predictions:
    """Several :class:`Predictions` as one, in their order."""
    return Predictions(*(np.concatenate(arrays) for arrays in zip(*parts)))


def _block(logits: Tensor, target: Tensor) -> Predictions:
    p = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32).softmax(dim=-1)
    confidence, best = p.max(dim=-1)
    probability = p.gather(-1, target[:, None]).squeeze(-1)
    entropy = torch.special.entr(p).sum(dim=-1) / np.log(2)
    values = [each.double().cpu().numpy() for each in (probability, confidence, entropy)]
    return Predictions(values[0], values[1], best.eq(target).cpu().numpy(), values[2])

"""From what a regularized model predicts back to what it believes: calibrated probabilities in closed form.

A regularized objective is not minimal where the prediction ``p`` is the true conditional distribution ``y``, but at
another ``p``. Which one is a matter of the objective alone: where the mean of the loss over ``y`` is minimal, its
gradient, Σ_k y_k·∂R_k/∂z, is 0, and this equation can be solved for ``y``. With the gradients of the modules here:

    cross-entropy        y = p
    label smoothing      y = (p − ε/K) / (1−ε)                               (Liang et al., 2022)
    LABO                 y = (p − α·P*) / (1−α),  α and P* of p
    distillation         y = (p − α·P_T) / (1−α)
    confidence penalty   y = p·(1 + β·(log p + H(p)))
    focal loss           y ∝ p / ((1−p)^γ − γ·p·(1−p)^(γ−1)·log p)           (Charoenphakdee et al., 2021)
    anti-focal loss      y ∝ p / ((1+αp)^γ + γα·p·(1+αp)^(γ−1)·log p)

A prediction that is no minimum may give classes less than nothing. They are clipped at 0, and the rest is normalized.
So that no class that has a finite logit is impossible, the result is mixed with the prediction: (1−f)·y + f·p,
f = :data:`FLOOR`; cross-entropy needs none. Where y keeps the order of the classes, so does the result, also among
those that were clipped.
"""

import math
from typing import Callable, NamedTuple, Optional

import torch
from torch import Tensor

from .blockwise import (
    accumulator,
    add_product,
    check_classes,
    is_compiling,
    is_transformed,
    may_overwrite,
    row_blocks,
)

#: the share f of the prediction in the result: the largest that hardly changes the calibration error
#: (benchmarks/posterior.py, docs/calibration.md)
FLOOR = 1e-2


# e^x of a smaller x is no normal float32 any more
_SMALL_X = -80.0


class Odds(NamedTuple):
    """A block of logits ``z`` (n, K) as numbers that are not normalized yet."""

    x: Tensor  # (n, K), z − max z, finite where z is −inf, so that 0·x is 0
    e: Tensor  # (n, K), e^x, which is s·p
    s: Tensor  # (n, 1), Σ e^x
    regular: bool  # whether all x are finite, and all e above 0


def odds(z: Tensor) -> Odds:
    """Those of logits (n, K)."""
    most = z.amax(dim=-1, keepdim=True)
    x = z - most
    regular = may_overwrite() and x.numel() > 0 and x.min().item() > _SMALL_X
    if not regular:
        x = x.clamp(min=torch.finfo(z.dtype).min)
    e = x.exp()
    return Odds(x, e, e.sum(dim=-1, keepdim=True), regular)


def entropy_of(odds: Odds) -> Tensor:
    """H(p), (n, 1)."""
    return odds.s.log() - (odds.e * odds.x).sum(dim=-1, keepdim=True) / odds.s


def check_labels_had_part(alpha: float) -> None:
    """ValueError where the mass α of what is not the label was all."""
    if alpha >= 1:
        raise ValueError(
            f"alpha must be < 1, got {alpha:g}: labels had no part in such a training, and nothing can be told of them"
        )


def log_posterior_rows(block: Callable[..., Tensor], logits: Tensor, *beside: Tensor) -> Tensor:
    """log y, of the shape of the logits.

    Args:
        block: what makes ``y`` of :class:`Odds` and the rows of ``beside``: (n, K), up to a factor for each row, and
            below 0 where it is to be 0.
        logits: (…, K), float16, bfloat16, float32 or float64. Those of −inf stay −inf.
        beside: (…, K).

    Returns:
        float32, or float64 for float64.

    Raises:
        ValueError: fewer than two classes.
    """
    if logits.dim() == 0:
        raise ValueError("logits must be (…, K), got a number")
    check_classes(logits.size(-1))
    flat = logits.reshape(-1, logits.size(-1))
    others = [tensor.reshape(flat.shape) for tensor in beside]
    followed = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (logits, *beside))
    if is_compiling() or is_transformed(logits) or followed:
        return _log_posterior(block, flat, *others).view(logits.shape)
    out = torch.empty(flat.shape, dtype=accumulator(flat), device=flat.device)
    with torch.no_grad():
        for rows in row_blocks(flat):
            _log_posterior(block, flat[rows], *(tensor[rows] for tensor in others), out=out[rows])
    return out.view(logits.shape)


def _log_posterior(
    block: Callable[..., Tensor], logits: Tensor, *beside: Tensor, out: Optional[Tensor] = None
) -> Tensor:
    z = logits.to(accumulator(logits))
    o = odds(z)
    y = block(o, *beside)
    y = y.clamp_(min=0) if may_overwrite() else y.clamp(min=0)
    total = y.sum(dim=-1, keepdim=True)
    # Nothing is left of a prediction that is as good as certain, whose α rounds to 1: it stays what it is.
    gone = total == 0
    total = total.masked_fill(gone, 1.0)
    # (1−f)·y/Σy + f·e/s, less the factor (1−f)/Σy
    mixed = add_product(y, o.e, FLOOR / (1 - FLOOR) * total / o.s)
    log_y = mixed.log_() if may_overwrite() else mixed.log()
    factor = ((1 - FLOOR) / total).log() - gone.to(z.dtype) * math.log(FLOOR)
    if o.regular:
        return torch.add(log_y, factor, out=out)
    # e^x may be 0 where x is finite
    least = z - (z.amax(dim=-1, keepdim=True) + o.s.log() - math.log(FLOOR))
    return torch.maximum(log_y + factor, least, out=out)

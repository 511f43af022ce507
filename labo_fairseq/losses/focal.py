"""Cross-entropy weighted by the probability of the ground truth: the focal loss and its opposite.

Focal loss (Lin et al., 2017): ``−(1 − p_k)^γ·log p_k``, less weight on what is learned already. Anti-focal loss
(Raunak et al., 2020): ``−(1 + α·p_k)^γ·log p_k``, more weight on it. Both are one formula, with a = −1 and a = α:

    w      = (1 + a·p_k)^γ
    R      = −w·log p_k
    ∂R/∂z  = (w + γ·a·p_k·log p_k·(1 + a·p_k)^(γ−1))·(p − onehot(k))

The gradient is that of the whole product. (The code released with the anti-focal loss holds w constant in it.)
"""

from functools import partial
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from .blockwise import TokenTerms, check_not_negative, predict, token_terms


def focal_terms(logits: Tensor, target: Tensor, gamma: float = 2.0, ignore_index: int = -100) -> TokenTerms:
    """The focal loss for every token; with γ = 0 it is cross-entropy.

    Args:
        logits: (N, K), float16, bfloat16, float32 or float64. ``-inf`` masks a class. Sums are taken in
            float32 (float64 for float64), and so are the results.
        target: (N,), int64, class indices or ``ignore_index``.
        gamma: exponent γ ≥ 0.
        ignore_index: targets of this value have no loss and no gradient.

    Returns:
        :class:`TokenTerms`; only ``loss`` is differentiable, and once.

    Raises:
        ValueError: an option out of range, shapes that do not fit, or fewer than two classes.
    """
    check_not_negative("gamma", gamma)
    return token_terms(partial(_block, a=-1.0, gamma=gamma), logits, target, ignore_index)


def anti_focal_terms(
    logits: Tensor, target: Tensor, alpha: float = 0.5, gamma: float = 1.0, ignore_index: int = -100
) -> TokenTerms:
    """The anti-focal loss for every token; with α = 0 or γ = 0 it is cross-entropy.

    Args:
        alpha: weight α ≥ 0 of the probability of the ground truth.

    For the other arguments, the result and the errors see :func:`focal_terms`.
    """
    check_not_negative("alpha", alpha)
    check_not_negative("gamma", gamma)
    return token_terms(partial(_block, a=alpha, gamma=gamma), logits, target, ignore_index)


def _block(z: Tensor, index: Tensor, a: float, gamma: float, with_grad: bool) -> Tuple[List[Tensor], Optional[Tensor]]:
    """The fields of :class:`TokenTerms` and ∂R/∂z of logits (n, K); index: (n, 1)."""
    _, p, _, nll, entropy = predict(z, index)
    p_k = torch.exp(-nll)
    base = 1 + a * p_k
    weight = base**gamma
    terms = [weight * nll, nll, entropy]
    if not with_grad:
        return terms, None
    p_log_p = -p_k * nll.masked_fill(p_k == 0, 0.0)
    # tends to 0 with the base, although its last factor is infinite there if γ < 1
    slope_of_weight = (gamma * a * p_log_p * base ** (gamma - 1)).masked_fill_(base == 0, 0.0)
    grad = p.scatter_add_(-1, index, -torch.ones_like(nll)[:, None])
    return terms, grad.mul_((weight + slope_of_weight)[:, None])

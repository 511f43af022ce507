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

from .blockwise import TokenTerms, add_at_label, check_not_negative, predict, token_terms
from .posterior import Odds, log_posterior_rows


def focal_terms(logits: Tensor, target: Tensor, gamma: float = 2.0, ignore_index: Optional[int] = -100) -> TokenTerms:
    """The focal loss for every token; with γ = 0 it is cross-entropy.

    Args:
        logits: (N, K), float16, bfloat16, float32 or float64. ``-inf`` masks a class. Sums are taken in
            float32 (float64 for float64), and so are the results.
        target: (N,), int64, class indices or ``ignore_index``.
        gamma: exponent γ ≥ 0.
        ignore_index: targets of this value have no loss and no gradient; None ignores nothing.

    Returns:
        :class:`TokenTerms`; only ``loss`` is differentiable.

    Raises:
        ValueError: an option out of range, shapes that do not fit, or fewer than two classes.
    """
    check_not_negative("gamma", gamma)
    return token_terms(partial(_block, a=-1.0, gamma=gamma), logits, target, ignore_index)


def anti_focal_terms(
    logits: Tensor, target: Tensor, alpha: float = 0.5, gamma: float = 1.0, ignore_index: Optional[int] = -100
) -> TokenTerms:
    """The anti-focal loss for every token; with α = 0 or γ = 0 it is cross-entropy.

    Args:
        alpha: weight α ≥ 0 of the probability of the ground truth.

    For the other arguments, the result and the errors see :func:`focal_terms`.
    """
    check_not_negative("alpha", alpha)
    check_not_negative("gamma", gamma)
    return token_terms(partial(_block, a=alpha, gamma=gamma), logits, target, ignore_index)


def focal_log_posterior(logits: Tensor, gamma: float = 2.0) -> Tensor:
    """log y of the distribution y that a model trained with the focal loss predicts as p.

    The mean over y of a loss φ(p_k) is minimal where y_j·φ'(p_j) is the same for all classes j (the gradient in z_j is
    y_j·φ'(p_j)·p_j − p_j·Σ_k y_k·φ'(p_k)·p_k), so y_j ∝ −1/φ'(p_j) = p / ((1−p)^γ − γ·p·(1−p)^(γ−1)·log p). The order
    of the classes is that of p.

    Args:
        logits: (…, K), see :func:`focal_terms`; those of −inf stay −inf.
        gamma: that of the training.

    Returns:
        (…, K), float32, or float64 for float64; see :mod:`.posterior` for its floor.

    Raises:
        ValueError: an option out of range, or fewer than two classes.
    """
    check_not_negative("gamma", gamma)
    return log_posterior_rows(partial(_odds, a=-1.0, gamma=gamma), logits)


def anti_focal_log_posterior(logits: Tensor, alpha: float = 0.5, gamma: float = 1.0) -> Tensor:
    """The same of the anti-focal loss: y ∝ p / ((1+αp)^γ + γα·p·(1+αp)^(γ−1)·log p).

    The loss must fall with p for this: it does where γ·α is at most e, the options of the paper among them. Beyond,
    probabilities at which it rises are no minimum, and get as much as there is.

    Args:
        alpha: that of the training.

    For the other arguments, the result and the errors see :func:`focal_log_posterior`.
    """
    check_not_negative("alpha", alpha)
    check_not_negative("gamma", gamma)
    return log_posterior_rows(partial(_odds, a=alpha, gamma=gamma), logits)


def _odds(odds: Odds, a: float, gamma: float) -> Tensor:
    """Up to a factor for each row, p / (b^γ + γ·a·p·b^(γ−1)·log p) with b = 1 + a·p, (n, K)."""
    eps = torch.finfo(odds.x.dtype).eps
    log_p, p = odds.x - odds.s.log(), odds.e / odds.s
    # of a p near 1, 1 − p has no more digits than Σ e^x
    base = (torch.add(odds.s, odds.e, alpha=a) / odds.s).clamp(min=eps)
    falling = torch.addcmul(base, p, log_p, value=gamma * a)  # b + γ·a·p·log p
    if a > 0:  # below 0 where the loss rises with p
        falling = torch.maximum(falling, eps * base)
    y = p / falling
    if gamma == 1:
        return y
    # b^(1−γ), less a factor that keeps it from overflowing
    ratio = base.amin(dim=-1, keepdim=True).detach() / base
    return y * (ratio if gamma == 2 else ratio ** (gamma - 1))


def _block(z: Tensor, label: Tensor, a: float, gamma: float, with_grad: bool) -> Tuple[List[Tensor], Optional[Tensor]]:
    """The fields of :class:`TokenTerms` and ∂R/∂z of logits (n, K); label: (n, 1)."""
    _, p, _, nll, entropy = predict(z, label)
    p_k = torch.exp(-nll)
    base = 1 + a * p_k
    weight = base**gamma
    terms = [weight * nll, nll, entropy]
    if not with_grad:
        return terms, None
    p_log_p = -p_k * nll.masked_fill(p_k == 0, 0.0)
    # tends to 0 with the base, although its last factor is infinite there if γ < 1
    slope_of_weight = (gamma * a * p_log_p * base ** (gamma - 1)).masked_fill_(base == 0, 0.0)
    grad = add_at_label(p, label, -torch.ones_like(nll))
    return terms, grad.mul_((weight + slope_of_weight)[:, None])

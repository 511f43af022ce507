"""Knowledge distillation at temperature 1, Eq. 3 of the paper, from the probabilities ``P_T`` of a teacher.

    R      = (1−α)·(−log p_k) + α·KL(P_T‖p)
    ∂R/∂z  = p − (1−α)·onehot(k) − α·P_T                                (the smoothed label of Eq. 4)

It is the general objective (Eq. 8) with the fixed smoothing distribution ``P_T`` and ``β = α``, less α·log K (Eq. 9).
"""

from functools import partial
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from .blockwise import TokenTerms, add_at_label, overwritable, predict, times, token_terms
from .posterior import Odds, check_labels_had_part, log_posterior_rows


def distillation_terms(
    logits: Tensor, target: Tensor, teacher: Tensor, alpha: float = 0.5, ignore_index: Optional[int] = -100
) -> TokenTerms:
    """The objective for every token.

    Args:
        logits: (N, K), float16, bfloat16, float32 or float64. ``-inf`` masks a class. Sums are taken in
            float32 (float64 for float64), and so are the results.
        target: (N,), int64, class indices or ``ignore_index``.
        teacher: (N, K), probabilities; rows sum to 1. They have no gradient.
        alpha: mass α in [0, 1] of the teacher.
        ignore_index: targets of this value have no loss and no gradient; None ignores nothing.

    Returns:
        :class:`TokenTerms`; only ``loss`` is differentiable.

    Raises:
        ValueError: an option out of range, shapes that do not fit, or fewer than two classes.
    """
    check_alpha(alpha)
    _check_shapes(logits, teacher)
    return token_terms(partial(_block, alpha=alpha), logits, target, ignore_index, beside=(teacher.detach(),))


def distillation_log_posterior(logits: Tensor, teacher: Tensor, alpha: float = 0.5) -> Tensor:
    """log y of the distribution y = (p − α·P_T)/(1−α) that a student of this teacher predicts as p.

    At its minimum the mean of the objective over y has the gradient p − (1−α)·y − α·P_T = 0. The order of the classes
    need not be that of p.

    Args:
        logits: (…, K), see :func:`distillation_terms`; those of −inf stay −inf.
        teacher: (…, K), its probabilities.
        alpha: that of the training.

    Returns:
        (…, K), float32, or float64 for float64; see :mod:`.posterior` for its floor.

    Raises:
        ValueError: an option out of range, α = 1, which leaves nothing of the labels, or shapes that do not fit.
    """
    check_alpha(alpha)
    check_labels_had_part(alpha)
    _check_shapes(logits, teacher)
    return log_posterior_rows(partial(_odds, alpha=alpha), logits, teacher)


def _odds(odds: Odds, teacher: Tensor, alpha: float) -> Tensor:
    """s·(p − α·P_T), (n, K)."""
    return odds.e - alpha * odds.s * teacher.to(odds.e.dtype)


def _check_shapes(logits: Tensor, teacher: Tensor) -> None:
    if teacher.shape != logits.shape:
        raise ValueError(f"teacher must have the shape of the logits {tuple(logits.shape)}, got {tuple(teacher.shape)}")


def check_alpha(alpha: float) -> None:
    """ValueError names the option, its value and its range."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")


def _block(
    z: Tensor, label: Tensor, teacher: Tensor, alpha: float, with_grad: bool
) -> Tuple[List[Tensor], Optional[Tensor]]:
    """The fields of :class:`TokenTerms` and ∂R/∂z of logits (n, K); label: (n, 1); teacher: (n, K)."""
    _, p, log_s, nll, entropy = predict(z, label)
    t = teacher.to(z.dtype)
    log_p = (z - z.amax(dim=-1, keepdim=True)).sub_(log_s[:, None])
    # 0·log(0/p) is 0, also for a p of 0
    divergence = (t * (t.log() - log_p)).masked_fill_(t == 0, 0.0).sum(dim=-1)
    terms = [times(1 - alpha, nll) + times(alpha, divergence), nll, entropy]
    if not with_grad:
        return terms, None
    grad = overwritable(p).sub_(t, alpha=alpha)
    return terms, add_at_label(grad, label, torch.full_like(nll, alpha - 1))

"""Knowledge distillation at temperature 1, Eq. 3 of the paper, from the probabilities ``P_T`` of a teacher.

    R      = (1−α)·(−log p_k) + α·KL(P_T‖p)
    ∂R/∂z  = p − (1−α)·onehot(k) − α·P_T                                (the smoothed label of Eq. 4)

It is the general objective (Eq. 8) with the fixed smoothing distribution ``P_T`` and ``β = α``, less α·log K (Eq. 9).
"""

from functools import partial
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from .blockwise import TokenTerms, predict, times, token_terms


def distillation_terms(
    logits: Tensor, target: Tensor, teacher: Tensor, alpha: float = 0.5, ignore_index: int = -100
) -> TokenTerms:
    """The objective for every token.

    Args:
        logits: (N, K), float16, bfloat16, float32 or float64. ``-inf`` masks a class. Sums are taken in
            float32 (float64 for float64), and so are the results.
        target: (N,), int64, class indices or ``ignore_index``.
        teacher: (N, K), probabilities; rows sum to 1. They have no gradient.
        alpha: mass α in [0, 1] of the teacher.
        ignore_index: targets of this value have no loss and no gradient.

    Returns:
        :class:`TokenTerms`; only ``loss`` is differentiable, and once.

    Raises:
        ValueError: an option out of range, shapes that do not fit, or fewer than two classes.
    """
    check_alpha(alpha)
    if teacher.shape != logits.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and teacher {tuple(teacher.shape)} do not fit each other")
    return token_terms(partial(_block, alpha=alpha), logits, target, ignore_index, beside=(teacher.detach(),))


def check_alpha(alpha: float) -> None:
    """ValueError names the option, its value and its range."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}: it must lie in [0, 1]")


def _block(
    z: Tensor, index: Tensor, teacher: Tensor, alpha: float, with_grad: bool
) -> Tuple[List[Tensor], Optional[Tensor]]:
    """The fields of :class:`TokenTerms` and ∂R/∂z of logits (n, K); index: (n, 1); teacher: (n, K)."""
    _, p, log_s, nll, entropy = predict(z, index)
    t = teacher.to(z.dtype)
    log_p = (z - z.amax(dim=-1, keepdim=True)).sub_(log_s[:, None])
    # 0·log(0/p) is 0, also for a p of 0
    divergence = (t * (t.log() - log_p)).masked_fill_(t == 0, 0.0).sum(dim=-1)
    terms = [times(1 - alpha, nll) + times(alpha, divergence), nll, entropy]
    if not with_grad:
        return terms, None
    grad = p.sub_(t, alpha=alpha)
    return terms, grad.scatter_add_(-1, index, torch.full_like(nll, alpha - 1)[:, None])

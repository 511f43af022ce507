"""The confidence penalty of Pereyra et al. (2017), Eq. 2 of the paper: cross-entropy minus β times the entropy.

R      = −log p_k − β·H(p)
∂R/∂z  = p − onehot(k) + β·p·(log p + H(p))
"""

from functools import partial
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from .blockwise import (
    TokenTerms,
    add_at_label,
    add_product,
    check_not_negative,
    overwritable,
    predict,
    token_terms,
    with_finite_slope,
)
from .posterior import Odds, entropy_of, log_posterior_rows


def confidence_penalty_terms(
    logits: Tensor, target: Tensor, beta: float = 0.1, ignore_index: Optional[int] = -100
) -> TokenTerms:
    """The objective for every token.

    Args:
        logits: (N, K), float16, bfloat16, float32 or float64. ``-inf`` masks a class. Sums are taken in
            float32 (float64 for float64), and so are the results.
        target: (N,), int64, class indices or ``ignore_index``.
        beta: weight β ≥ 0 of the entropy.
        ignore_index: targets of this value have no loss and no gradient; None ignores nothing.

    Returns:
        :class:`TokenTerms`; only ``loss`` is differentiable.

    Raises:
        ValueError: an option out of range, shapes that do not fit, or fewer than two classes.
    """
    check_not_negative("beta", beta)
    return token_terms(partial(_block, beta=beta), logits, target, ignore_index)


def confidence_penalty_log_posterior(logits: Tensor, beta: float = 0.1) -> Tensor:
    """log y of the distribution y = p·(1 + β·(log p + H(p))) that a model trained with this penalty predicts as p.

    At its minimum the mean of the objective over y has the gradient p − y + β·p·(log p + H(p)) = 0. The order of
    the classes is that of p.

    Args:
        logits: (…, K), see :func:`confidence_penalty_terms`; those of −inf stay −inf.
        beta: that of the training.

    Returns:
        (…, K), float32, or float64 for float64; see :mod:`.posterior` for its floor.

    Raises:
        ValueError: an option out of range, or fewer than two classes.
    """
    check_not_negative("beta", beta)
    return log_posterior_rows(partial(_odds, beta=beta), logits)


def _odds(odds: Odds, beta: float) -> Tensor:
    """s·p·(1 + β·(log p + H(p))), or 0 where that is less, (n, K)."""
    # 1 + β·(x − log s + H), which autograd follows as well
    bracket = overwritable(odds.x).add_(1 / beta + entropy_of(odds) - odds.s.log()) if beta else torch.ones_like(odds.x)
    return odds.e * bracket.clamp(min=0)


def _block(z: Tensor, label: Tensor, beta: float, with_grad: bool) -> Tuple[List[Tensor], Optional[Tensor]]:
    """The fields of :class:`TokenTerms` and ∂R/∂z of logits (n, K); label: (n, 1)."""
    x, p, log_s, nll, entropy = predict(z, label)
    terms = [nll - beta * entropy, nll, entropy]
    if not with_grad:
        return terms, None
    log_p_and_entropy = with_finite_slope(overwritable(x).sub_((log_s - entropy)[:, None]), p)
    grad = add_product(p, p, log_p_and_entropy, value=beta)
    return terms, add_at_label(grad, label, -torch.ones_like(nll))

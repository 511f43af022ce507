"""The confidence penalty of Pereyra et al. (2017), Eq. 2 of the paper: cross-entropy minus β times the entropy.

R      = −log p_k − β·H(p)
∂R/∂z  = p − onehot(k) + β·p·(log p + H(p))
"""

from functools import partial
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from .blockwise import TokenTerms, check_not_negative, predict, token_terms


def confidence_penalty_terms(logits: Tensor, target: Tensor, beta: float = 0.1, ignore_index: int = -100) -> TokenTerms:
    """The objective for every token.

    Args:
        logits: (N, K), float16, bfloat16, float32 or float64. ``-inf`` masks a class. Sums are taken in
            float32 (float64 for float64), and so are the results.
        target: (N,), int64, class indices or ``ignore_index``.
        beta: weight β ≥ 0 of the entropy.
        ignore_index: targets of this value have no loss and no gradient.

    Returns:
        :class:`TokenTerms`; only ``loss`` is differentiable, and once.

    Raises:
        ValueError: an option out of range, shapes that do not fit, or fewer than two classes.
    """
    check_not_negative("beta", beta)
    return token_terms(partial(_block, beta=beta), logits, target, ignore_index)


def _block(z: Tensor, index: Tensor, beta: float, with_grad: bool) -> Tuple[List[Tensor], Optional[Tensor]]:
    """The fields of :class:`TokenTerms` and ∂R/∂z of logits (n, K); index: (n, 1)."""
    x, p, log_s, nll, entropy = predict(z, index)
    terms = [nll - beta * entropy, nll, entropy]
    if not with_grad:
        return terms, None
    log_p_and_entropy = x.sub_((log_s - entropy)[:, None])
    grad = p.addcmul_(p, log_p_and_entropy, value=beta)
    return terms, grad.scatter_add_(-1, index, -torch.ones_like(nll)[:, None])

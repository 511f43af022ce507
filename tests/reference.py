"""The paper's equations, literally and slowly, in float64: the truth that the fast code is held against."""

import math

import torch
from torch import Tensor


def objective(logits: Tensor, target: Tensor, tau: float, alpha: Tensor) -> Tensor:
    """R of Eq. 14 for every token, with P* of Eq. 12 and P̂ of Eq. 6 written out. P* and α are constants."""
    k = logits.size(-1)
    log_p = logits.double().log_softmax(-1)
    with torch.no_grad():
        # Eq. 12 in log space: p^(1/τ) underflows where the exponents below do not
        log_p_star = (log_p / tau) - (log_p / tau).logsumexp(-1, keepdim=True)
        p_star = log_p_star.exp()
        one_hot = torch.zeros_like(log_p).scatter_(-1, target[:, None], 1.0)
        label = (1 - alpha[:, None]) * one_hot + alpha[:, None] * p_star
        beta = alpha * tau
        kl = times(p_star, math.log(k) + log_p_star).sum(-1)
    return -times(label, log_p).sum(-1) + beta * kl


def adaptive_alpha(logits: Tensor, rho: float) -> Tensor:
    """α of Eq. 16: (H(U) − ρ·H(p)) / H(U)."""
    log_p = logits.double().log_softmax(-1)
    uniform = math.log(logits.size(-1))
    return (uniform - rho * -times(log_p.exp(), log_p).sum(-1)) / uniform


def gradient(logits: Tensor, target: Tensor, tau: float, alpha: Tensor) -> Tensor:
    """∂(Σ R)/∂z with autograd through the literal equation."""
    z = logits.detach().double().requires_grad_()
    objective(z, target, tau, alpha).sum().backward()
    return z.grad


def times(weight: Tensor, value: Tensor) -> Tensor:
    """weight·value with 0·(±inf) = 0, as in information theory."""
    return torch.where(weight > 0, weight * value.masked_fill(weight == 0, 0.0), torch.zeros_like(value))

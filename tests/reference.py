"""The equations of the papers, literally and slowly, in float64: the truth that the fast code is held against."""

import math

import torch
from torch import Tensor


def general(logits: Tensor, target: Tensor, p_ls: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """R of Eq. 8 for every token, with P̂ of Eq. 6 written out: any smoothing distribution (N, K), a constant."""
    log_p = logits.double().log_softmax(-1)
    label = (1 - alpha[:, None]) * one_hot(target, log_p) + alpha[:, None] * p_ls
    return -times(label, log_p).sum(-1) + beta * divergence(p_ls, -math.log(logits.size(-1)))


def objective(logits: Tensor, target: Tensor, tau: float, alpha: Tensor) -> Tensor:
    """R of Eq. 14 for every token: Eq. 8 with P* of Eq. 12. P* and α are constants."""
    with torch.no_grad():
        # Eq. 12 in log space: p^(1/τ) underflows where the exponents below do not
        log_p = logits.double().log_softmax(-1)
        p_star = (log_p / tau - (log_p / tau).logsumexp(-1, keepdim=True)).exp()
    return general(logits, target, p_star, alpha, alpha * tau)


def adaptive_alpha(logits: Tensor, rho: float) -> Tensor:
    """α of Eq. 16: (H(U) − ρ·H(p)) / H(U)."""
    uniform = math.log(logits.size(-1))
    return (uniform - rho * entropy(logits.double().log_softmax(-1))) / uniform


def gradient(logits: Tensor, target: Tensor, tau: float, alpha: Tensor) -> Tensor:
    """∂(Σ R)/∂z with autograd through the literal equation."""
    z = logits.detach().double().requires_grad_()
    objective(z, target, tau, alpha).sum().backward()
    return z.grad


def confidence_penalty(logits: Tensor, target: Tensor, beta: float) -> Tensor:
    """Eq. 2 for every token: H(q, p) − β·H(p)."""
    log_p = logits.double().log_softmax(-1)
    return -times(one_hot(target, log_p), log_p).sum(-1) - beta * entropy(log_p)


def focal(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Eq. 4 of Lin et al. (2017) for every token: −(1 − p_k)^γ·log p_k."""
    log_p_k = logits.double().log_softmax(-1).gather(-1, target[:, None]).squeeze(-1)
    return -((1 - log_p_k.exp()) ** gamma) * log_p_k


def anti_focal(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """The anti-focal loss of Raunak et al. (2020) for every token: −(1 + α·p_k)^γ·log p_k."""
    log_p_k = logits.double().log_softmax(-1).gather(-1, target[:, None]).squeeze(-1)
    return -((1 + alpha * log_p_k.exp()) ** gamma) * log_p_k


def distillation(logits: Tensor, target: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """Eq. 3 for every token: (1 − α)·H(q, p) + α·KL(P_T‖p)."""
    log_p = logits.double().log_softmax(-1)
    cross_entropy = -times(one_hot(target, log_p), log_p).sum(-1)
    return (1 - alpha) * cross_entropy + alpha * divergence(teacher.double(), log_p)


def rdrop(logits: Tensor, other: Tensor) -> Tensor:
    """L_KL of Eq. 2 of Wu et al. (2021) for every token: the mean of KL(p‖q) and KL(q‖p)."""
    log_p, log_q = logits.double().log_softmax(-1), other.double().log_softmax(-1)
    return (times(log_p.exp(), log_p - log_q) + times(log_q.exp(), log_q - log_p)).sum(-1) / 2


def one_hot(target: Tensor, log_p: Tensor) -> Tensor:
    return torch.zeros_like(log_p).scatter_(-1, target[:, None], 1.0)


def entropy(log_p: Tensor) -> Tensor:
    """H(p) of each row."""
    return -times(log_p.exp(), log_p).sum(-1)


def divergence(p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p‖q) of each row; log q is a number where q is uniform."""
    return times(p, p.log() - log_q).sum(-1)


def times(weight: Tensor, value: Tensor) -> Tensor:
    """weight·value with 0·(±inf) = 0, as in information theory."""
    return torch.where(weight > 0, weight * value.masked_fill(weight == 0, 0.0), torch.zeros_like(value))

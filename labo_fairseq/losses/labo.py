"""The LABO objective in closed form.

Notation (Lu et al., 2023): logits ``z`` of one target token, ``p = softmax(z)``, ground truth ``k``,
vocabulary size ``K``, smoothing mass ``α``, temperature ``τ = β/α`` and ``P* = softmax(z/τ)`` (Eq. 15).
Put ``β = ατ`` and ``P*`` into Eq. 14, and every sum over the vocabulary but two disappears:

    R      = (1−α)·(lse(z) − z_k) + α·(lse(z) − τ·lse(z/τ) + τ·log K)
    ∂R/∂z  = p − (1−α)·onehot(k) − α·P*
    α      = 1 − ρ·H(p)/log K                                          (Eq. 16, constant for the gradient)

The gradient is the same whether ``P*`` is held constant or not, because ``P*`` minimises ``R`` (Eq. 17).
"""

import importlib.util
import math
from functools import partial
from typing import List, NamedTuple, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from .blockwise import differentiable_rows, predict, reduce_rows, rows_and_mask

ADAPTIVE = "adaptive"

# Above this τ, τ·log(mean e^(x/τ)) is taken as τ·log1p(mean(e^(x/τ) − 1)), which keeps its digits in float32.
_LARGE_TAU = 10.0


class LaboTerms(NamedTuple):
    """Per-token results of :func:`labo_terms`, each of shape (N,), 0 where the target is ignored."""

    loss: Tensor  # R of Eq. 14, in nats; the only differentiable one
    nll: Tensor  # −log p_k, in nats
    alpha: Tensor  # smoothing mass α
    entropy: Tensor  # H(p), in nats
    p_star: Tensor  # P*_k, what the smoothing distribution gives the ground truth


def labo_rows(
    logits: Tensor,
    target: Tensor,
    ignored: Tensor,
    tau: float,
    alpha: Optional[float],
    rho: float,
    grad: Optional[Tensor] = None,
    scale: Optional[Tensor] = None,
) -> Tensor:
    """The fields of :class:`LaboTerms` as one tensor (5, N), without autograd.

    Args:
        target: (N,), any class index where ``ignored``, (N,) bool, is true.
        tau: above 0; infinity makes ``P*`` uniform (Remark 3).
        alpha: a number, or None where it is adaptive.
        grad: (N, K), takes ``scale``·∂R/∂z where it is given. It may be ``logits`` itself.
        scale: (N,), one where it is not given. It is applied before rounding to the dtype of ``grad``.
    """
    if uses_triton(logits, tau):
        from . import triton_kernels

        return triton_kernels.labo_rows(logits, target, ignored, tau, alpha, rho, grad, scale)
    return reduce_rows(
        partial(_block, tau=tau, alpha=alpha, rho=rho), len(LaboTerms._fields), logits, target, ignored, grad, scale
    )


def _block(
    z: Tensor, index: Tensor, tau: float, alpha: Optional[float], rho: float, with_grad: bool
) -> Tuple[List[Tensor], Optional[Tensor]]:
    """The fields of :class:`LaboTerms` and ∂R/∂z of logits (n, K); index: (n, 1)."""
    x, p, log_s, nll, entropy = predict(z, index)
    p_star, annealed = _anneal(x, tau)
    a = 1 - rho * entropy / math.log(z.size(-1)) if alpha is None else torch.full_like(nll, alpha)
    # 0·inf is 0 here: a target of probability 0 costs nothing when its label has no mass
    cross_entropy = torch.where(a == 1, torch.zeros_like(nll), (1 - a) * nll)
    loss = cross_entropy + a * (log_s - annealed)
    terms = [loss, nll, a, entropy, p_star.gather(-1, index).squeeze(-1)]
    if not with_grad:
        return terms, None
    p.scatter_add_(-1, index, a[:, None] - 1)
    return terms, p.addcmul_(p_star, -a[:, None])


def uses_triton(logits: Tensor, tau: float) -> bool:
    """Whether the kernels of :mod:`.triton_kernels` serve these logits: on a GPU, unless sums need more digits."""
    wide = logits.dtype == torch.float64 or tau > _LARGE_TAU
    return logits.is_cuda and not wide and importlib.util.find_spec("triton") is not None


def _anneal(x: Tensor, tau: float) -> Tuple[Tensor, Tensor]:
    """P* of logits (n, K) whose maximum is 0, and τ·(lse(x/τ) − log K), (n,). Overwrites ``x``."""
    k = x.size(-1)
    if tau == math.inf:
        return torch.full_like(x, 1 / k), x.mean(dim=-1)
    x.mul_(1 / tau)
    p_star = x.softmax(dim=-1)
    log_mean = -p_star.amax(dim=-1).log() - math.log(k)
    if tau > _LARGE_TAU:
        mean = x.expm1_().mean(dim=-1)
        log_mean = torch.where(mean > -0.5, mean.log1p(), log_mean)
    return p_star, tau * log_mean


def labo_terms(
    logits: Tensor,
    target: Tensor,
    tau: float = 1.25,
    alpha: Union[str, float] = ADAPTIVE,
    rho: float = 0.5,
    ignore_index: int = -100,
) -> LaboTerms:
    """LABO's objective for every token (Eq. 14), with the quantities worth watching.

    Args:
        logits: (N, K), float16, bfloat16, float32 or float64. ``-inf`` masks a class. Sums are taken in
            float32 (float64 for float64), and so are the results.
        target: (N,), int64, class indices or ``ignore_index``.
        tau: temperature τ = β/α > 0 of the smoothing distribution ``P* = softmax(z/τ)``.
        alpha: smoothing mass α in [0, 1], or ``"adaptive"`` for Eq. 16.
        rho: ρ in [0.5, 1] of Eq. 16; ignored where α is fixed.
        ignore_index: targets of this value have no loss and no gradient.

    Returns:
        :class:`LaboTerms`; only ``loss`` is differentiable, and once.

    Raises:
        ValueError: an option out of range, shapes that do not fit, or fewer than two classes.
    """
    fixed = check_options(tau, alpha, rho)
    target, ignored = rows_and_mask(logits, target, ignore_index)
    if uses_triton(logits, tau):
        from .triton_kernels import TritonLabo

        return LaboTerms(*TritonLabo.apply(logits, target, ignored, tau, fixed, rho))
    rows = partial(labo_rows, tau=tau, alpha=fixed, rho=rho)
    return LaboTerms(*differentiable_rows(rows, logits, target, ignored))


class LaboLoss(nn.Module):
    """LABO as a drop-in for :class:`torch.nn.CrossEntropyLoss`, in any PyTorch trainer.

    >>> loss = LaboLoss(tau=1.25)(logits, target)

    Shapes are those of ``CrossEntropyLoss`` with class indices: logits (K), (N, K) or (N, K, d1, …), target
    (), (N) or (N, d1, …). The one difference: the mean over no token at all is 0, not NaN. There is no
    smoothing warm-up (Algorithm 1) in here; use ``CrossEntropyLoss(label_smoothing=0.1)`` for the first updates.

    Args:
        tau, alpha, rho, ignore_index: see :func:`labo_terms`.
        reduction: ``"mean"`` over the tokens that are not ignored, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: an option out of range, or shapes that do not fit.
    """

    def __init__(
        self,
        tau: float = 1.25,
        alpha: Union[str, float] = ADAPTIVE,
        rho: float = 0.5,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_options(tau, alpha, rho)
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction is {reduction!r}: it must be 'mean', 'sum' or 'none'")
        self.tau, self.alpha, self.rho = tau, alpha, rho
        self.ignore_index, self.reduction = ignore_index, reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        rows = logits if logits.dim() == 1 else logits.movedim(1, -1)
        if logits.dim() == 0 or target.shape != rows.shape[:-1]:
            raise ValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} do not fit each other")
        flat = rows.reshape(-1, rows.size(-1))
        loss = labo_terms(flat, target.reshape(-1), self.tau, self.alpha, self.rho, self.ignore_index).loss
        return self.reduce(loss, target)

    def reduce(self, loss: Tensor, target: Tensor) -> Tensor:
        """The losses (N,) of all tokens as ``reduction`` says, for a ``target`` of N elements."""
        if self.reduction == "none":
            return loss.view(target.shape)
        if self.reduction == "sum":
            return loss.sum()
        return loss.sum() / target.ne(self.ignore_index).sum().clamp(min=1)

    def extra_repr(self) -> str:
        return f"tau={self.tau}, alpha={self.alpha}, rho={self.rho}, reduction={self.reduction!r}"


def check_options(tau: float, alpha: Union[str, float], rho: float) -> Optional[float]:
    """α as a number, or None where it is adaptive; ValueError names the option, its value and its range."""
    if not (0 < tau < math.inf):
        raise ValueError(f"tau is {tau}: it must be a finite number above 0")
    if not 0.5 <= rho <= 1:
        raise ValueError(f"rho is {rho}: it must lie in [0.5, 1]")
    if alpha == ADAPTIVE:
        return None
    try:
        fixed = float(alpha)
    except (TypeError, ValueError):
        fixed = math.nan
    if not 0 <= fixed <= 1:
        raise ValueError(f"alpha is {alpha}: it must be 'adaptive' or a number in [0, 1]")
    return fixed

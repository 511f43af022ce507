"""The LABO objective in closed form.

Notation (Lu et al., 2023): logits ``z`` of one target token, ``p = softmax(z)``, ground truth ``k``,
vocabulary size ``K``, smoothing mass ``α``, temperature ``τ = β/α`` and ``P* = softmax(z/τ)`` (Eq. 15).
Put ``β = ατ`` and ``P*`` into Eq. 14, and every sum over the vocabulary but two disappears:

    R      = (1−α)·(lse(z) − z_k) + α·(lse(z) − τ·lse(z/τ) + τ·log K)
    ∂R/∂z  = p − (1−α)·onehot(k) − α·P*
    α      = 1 − ρ·H(p)/log K                                          (Eq. 16, constant for the gradient)

The gradient is the same whether ``P*`` is held constant or not, because ``P*`` minimises ``R`` (Eq. 17).
"""

import math
from typing import Iterator, NamedTuple, Optional, Union

import torch
from torch import Tensor, nn

ADAPTIVE = "adaptive"

# Rows are processed in blocks: on a CPU small enough for the temporaries to stay in cache, on a GPU
# small enough for them not to matter beside the logits.
_BLOCK_ELEMENTS = {"cpu": 1 << 18}
_BLOCK_ELEMENTS_ELSEWHERE = 1 << 26

# exp(x) is exactly 0 below this in float32 and float64, so that e·max(x, _TINY) is e·x without 0·inf.
_TINY = -1e3


class LaboTerms(NamedTuple):
    """Per-token results of :func:`labo_terms`, each of shape (N,), 0 where the target is ignored."""

    loss: Tensor  # R of Eq. 14, in nats; the only differentiable one
    nll: Tensor  # −log p_k, in nats
    alpha: Tensor  # smoothing mass α
    entropy: Tensor  # H(p), in nats
    p_star: Tensor  # P*_k, what the smoothing distribution gives the ground truth


class _Labo(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, target, ignored, tau, alpha, rho):  # type: ignore[override]
        n, k = logits.shape
        accumulator = _accumulator(logits)
        terms = torch.empty(5, n, dtype=accumulator, device=logits.device)
        saved = torch.empty(4, n, dtype=accumulator, device=logits.device)
        for rows in _blocks(logits):
            z = logits[rows].to(accumulator)
            m = z.amax(dim=-1)
            x = z - m[:, None]
            x_k = x.gather(-1, target[rows, None]).squeeze(-1)
            e = x.exp()
            s = e.sum(dim=-1)
            log_s = s.log()
            entropy = log_s - (e * x.clamp(min=_TINY)).sum(dim=-1) / s
            s_tau = (x / tau).exp_().sum(dim=-1)
            a = 1 - rho * entropy / math.log(k) if alpha is None else torch.full_like(s, alpha)
            nll = log_s - x_k
            # 0·inf is 0 here: a target of probability 0 costs nothing when its label has no mass
            cross_entropy = torch.where(a < 1, (1 - a) * nll, torch.zeros_like(nll))
            regularised = log_s - tau * (s_tau.log() - math.log(k))
            p_star = (x_k / tau).exp() / s_tau
            terms[:, rows] = torch.stack([cross_entropy + a * regularised, nll, a, entropy, p_star])
            saved[:, rows] = torch.stack([m, s, s_tau, a])
        terms.masked_fill_(ignored, 0.0)
        ctx.save_for_backward(logits, target, ignored, saved)
        ctx.tau = tau
        loss, *constants = terms.unbind()
        ctx.mark_non_differentiable(*constants)
        return (loss, *constants)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_loss, *_):  # type: ignore[override]
        # p and P* are computed again instead of being kept: no K-sized tensor lives between the two
        # passes, and the gradient's scale is applied in float32, before rounding to the logits' dtype.
        logits, target, ignored, saved = ctx.saved_tensors
        grad = torch.empty_like(logits)
        scale = grad_loss.to(saved.dtype).masked_fill(ignored, 0.0)
        for rows in _blocks(logits):
            m, s, s_tau, a = saved[:, rows]
            x = logits[rows].to(saved.dtype) - m[:, None]
            p_star = (x / ctx.tau).exp_().mul_((a * scale[rows] / s_tau)[:, None])
            g = x.exp_().mul_((scale[rows] / s)[:, None]).sub_(p_star)
            g.scatter_add_(-1, target[rows, None], ((a - 1) * scale[rows])[:, None])
            grad[rows] = g.masked_fill_(ignored[rows, None], 0.0)
        return grad, None, None, None, None, None


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
    if logits.dim() != 2 or target.shape != logits.shape[:1]:
        raise ValueError(
            f"labo_terms needs logits (N, K) and target (N,), not {tuple(logits.shape)} and {tuple(target.shape)}"
        )
    if logits.size(1) < 2:
        raise ValueError(f"labo_terms needs at least two classes, not {logits.size(1)}")
    ignored = target.eq(ignore_index)
    return LaboTerms(*_Labo.apply(logits, target.masked_fill(ignored, 0), ignored, tau, fixed, rho))


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


def _accumulator(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _blocks(logits: Tensor) -> Iterator[slice]:
    n, k = logits.shape
    size = max(1, _BLOCK_ELEMENTS.get(logits.device.type, _BLOCK_ELEMENTS_ELSEWHERE) // k)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))

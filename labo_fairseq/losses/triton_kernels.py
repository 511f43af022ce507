"""The LABO objective on a GPU: Triton kernels that read the logits once for the value and once for the gradient.

The first kernel streams a row and keeps m = max z, s = Σ e^(z−m), s_τ = Σ e^((z−m)/τ) and t = Σ (z−m)·e^(z−m); where
the maximum grows, all three sums are carried over to the new one. For large τ, where s_τ/K differs from 1
in its last digits alone, it also keeps u = Σ (e^((z−m)/τ) − 1); for τ = ∞, which is label smoothing, u = Σ (z−m) in the
place of s_τ. The second kernel writes the gradient, scaled in
float32 before it is rounded. Padding is neither read nor summed. Between the two only (4, N) numbers live.

The formulas are those of :mod:`.labo`, which serves every other device and float64. This module is imported only where
Triton is installed.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .blockwise import Block, Rows
from .labo import LARGE_TAU, LaboOptions, LaboTerms

_MAX_BLOCK = 4096
_WARPS = 8


@triton.jit
def _expm1(y):
    """e^y − 1: its series where the difference would lose digits."""
    series = y * (1 + y / 2 * (1 + y / 3 * (1 + y / 4 * (1 + y / 5 * (1 + y / 6)))))
    return tl.where(tl.abs(y) < 0.25, series, tl.exp(y) - 1)


@triton.jit
def _log1p(y):
    """log(1 + y); what 1 + y lost in rounding is given back by the quotient."""
    w = 1 + y
    return tl.where(w == 1, y, tl.log(w) * (y / tl.where(w == 1, 1.0, w - 1)))


@triton.jit
def _statistics(
    logits, target, ignored, terms, saved, row_stride, n, k, inverse_tau, log_k, alpha, rho, z_loss,
    adaptive: tl.constexpr, large_tau: tl.constexpr, uniform: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    skip = tl.load(ignored + row) != 0
    logits += row.to(tl.int64) * row_stride
    m = -3.0e38
    s = 0.0
    s_tau = 0.0
    t = 0.0
    u = 0.0
    # no pass over the columns where the target is ignored
    for start in range(0, tl.where(skip, 0, k), block):
        columns = start + tl.arange(0, block)
        z = tl.load(logits + columns, mask=columns < k, other=float("-inf")).to(tl.float32)
        new_m = tl.maximum(m, tl.max(z, axis=0))
        step = m - new_m
        kept = tl.exp(step)
        # finite, so that 0·x is 0
        x = tl.maximum(z - new_m, -3.0e38)
        e = tl.exp(x)
        t = kept * (t + step * s) + tl.sum(e * x, axis=0)
        s = kept * s + tl.sum(e, axis=0)
        if uniform:
            u += start * step + tl.sum(tl.where(columns < k, x, 0.0), axis=0)
        else:
            kept_tau = tl.exp(step * inverse_tau)
            s_tau = kept_tau * s_tau + tl.sum(tl.exp(x * inverse_tau), axis=0)
            if large_tau:
                new_u = tl.where(columns < k, _expm1(x * inverse_tau), 0.0)
                u = kept_tau * u + start * _expm1(step * inverse_tau) + tl.sum(new_u, axis=0)
        m = new_m
    if skip:
        for field in tl.static_range(5):
            tl.store(terms + field * n + row, 0.0)
    else:
        x_k = tl.load(logits + tl.load(target + row)).to(tl.float32) - m
        log_s = tl.log(s)
        entropy = log_s - t / s
        a = alpha
        if adaptive:
            a = 1 - rho * entropy / log_k
        nll = log_s - x_k
        # 0·inf is 0 here, as in the PyTorch path
        cross_entropy = tl.where(a == 1, 0.0, (1 - a) * nll)
        if uniform:
            s_tau += k
            p_star = 1 / s_tau
            annealed = u / s_tau
        else:
            p_star = tl.exp(x_k * inverse_tau) / s_tau
            log_mean = tl.log(s_tau) - log_k
            if large_tau:
                log_mean = tl.where(u > -0.5 * k, _log1p(u / k), log_mean)
            annealed = log_mean / inverse_tau
        loss = cross_entropy + a * (log_s - annealed)
        lse = m + log_s
        tl.store(terms + row, loss + z_loss * lse * lse)
        tl.store(terms + n + row, nll)
        tl.store(terms + 2 * n + row, a)
        tl.store(terms + 3 * n + row, entropy)
        tl.store(terms + 4 * n + row, p_star)
        tl.store(saved + row, m)
        tl.store(saved + n + row, s)
        tl.store(saved + 2 * n + row, s_tau)
        tl.store(saved + 3 * n + row, a)


@triton.jit
def _gradient(
    logits, target, ignored, saved, scale, grad, row_stride, grad_stride, n, k, inverse_tau, z_loss,
    block: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    skip = tl.load(ignored + row) != 0
    logits += row.to(tl.int64) * row_stride
    grad += row.to(tl.int64) * grad_stride
    if skip:
        for start in range(0, k, block):
            columns = start + tl.arange(0, block)
            tl.store(grad + columns, tl.zeros([block], dtype=tl.float32).to(grad.dtype.element_ty), mask=columns < k)
    else:
        factor = tl.load(scale + row).to(tl.float32)
        m = tl.load(saved + row)
        s = tl.load(saved + n + row)
        of_p = factor * (1 + 2 * z_loss * (m + tl.log(s))) / s
        a = tl.load(saved + 3 * n + row)
        of_p_star = factor * a / tl.load(saved + 2 * n + row)
        label = tl.load(target + row)
        for start in range(0, k, block):
            columns = start + tl.arange(0, block)
            z = tl.load(logits + columns, mask=columns < k, other=float("-inf")).to(tl.float32)
            x = tl.maximum(z - m, -3.0e38)  # finite, as above
            g = of_p * tl.exp(x) - of_p_star * tl.exp(x * inverse_tau)
            g -= tl.where(columns == label, factor * (1 - a), 0.0)
            tl.store(grad + columns, g.to(grad.dtype.element_ty), mask=columns < k)


def statistics(options: LaboOptions, logits: Tensor, target: Tensor, ignored: Tensor) -> Tuple[Tensor, Tensor]:
    """The terms (5, N) of :class:`.labo.LaboTerms`, and what :func:`gradient` needs: (4, N), float32.

    Logits are float32 or narrower, (N, K) with rows that are contiguous.
    """
    n, k = logits.shape
    terms = torch.empty(5, n, dtype=torch.float32, device=logits.device)
    saved = torch.empty(4, n, dtype=torch.float32, device=logits.device)
    if n:
        alpha = options.fixed_alpha
        inverse_tau, fixed = 1 / options.tau, 0.0 if alpha is None else alpha
        with torch.cuda.device_of(logits):  # Triton launches on the current device
            _statistics[(n,)](
                *(logits, target, ignored, terms, saved, logits.stride(0), n, k),
                *(inverse_tau, math.log(k), fixed, options.rho, options.z_loss),
                adaptive=alpha is None,
                large_tau=options.tau > LARGE_TAU,
                uniform=options.tau == math.inf,
                block=_block(k),
                num_warps=_WARPS,
            )
    return terms, saved


def gradient(
    options: LaboOptions,
    logits: Tensor,
    target: Tensor,
    ignored: Tensor,
    saved: Tensor,
    scale: Optional[Tensor],
    grad: Tensor,
) -> None:
    """Write ``scale``·∂R/∂z, (N, K), into ``grad``, which has contiguous rows and may be ``logits``.

    ``scale`` is (N,), or None for 1.
    """
    n, k = logits.shape
    if n:
        scale = torch.ones_like(saved[0]) if scale is None else scale.contiguous()
        with torch.cuda.device_of(logits):
            _gradient[(n,)](
                *(logits, target, ignored, saved, scale, grad, logits.stride(0), grad.stride(0)),
                *(n, k, 1 / options.tau, options.z_loss),
                block=_block(k),
                num_warps=_WARPS,
            )


@dataclass(frozen=True)
class TritonKernel:
    """What :class:`.blockwise.BlockKernel` is, for class indices as targets and with nothing ``beside`` them.

    Args:
        options: of the objective.
        block: the same in PyTorch, for second derivatives.
    """

    options: LaboOptions
    block: Block
    fields: ClassVar[int] = len(LaboTerms._fields)
    rows_together: ClassVar[int] = 1

    def reduce(self, rows: Rows, grad: Optional[Tensor] = None, scale: Optional[Tensor] = None) -> Tensor:
        """See :meth:`.blockwise.BlockKernel.reduce`."""
        logits = _contiguous_rows(rows.logits)
        terms, saved = statistics(self.options, logits, rows.target, rows.ignored)
        if grad is not None:
            gradient(self.options, logits, rows.target, rows.ignored, saved, scale, grad)
        return terms

    def reduce_and_save(self, rows: Rows) -> Tuple[Tensor, Tuple[Tensor, ...]]:
        """The terms, and the statistics of each row, which save :meth:`gradient` a pass over the logits."""
        terms, saved = statistics(self.options, _contiguous_rows(rows.logits), rows.target, rows.ignored)
        return terms, (saved,)

    def gradient(self, rows: Rows, saved: Tuple[Tensor, ...], scale: Tensor) -> Tensor:
        """``scale``·∂R/∂z, (N, K), of the dtype of the logits."""
        logits = _contiguous_rows(rows.logits)
        grad = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        gradient(self.options, logits, rows.target, rows.ignored, saved[0], scale, grad)
        return grad


def _contiguous_rows(logits: Tensor) -> Tensor:
    return logits if logits.stride(1) == 1 else logits.contiguous()


def _block(k: int) -> int:
    return min(_MAX_BLOCK, triton.next_power_of_2(k))

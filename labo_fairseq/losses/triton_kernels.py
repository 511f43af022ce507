"""The LABO objective on a GPU: Triton kernels that read the logits once for the value and once for the gradient.

The first kernel streams a row and keeps m = max z, s = Σ e^(z−m), s_τ = Σ e^((z−m)/τ) and t = Σ (z−m)·e^(z−m); where
the maximum grows, all three sums are carried over to the new one. The second kernel writes the gradient, scaled
in float32 before it is rounded. Padding is neither read nor summed. Between the two only (4, N) numbers live.

The formulas are those of :mod:`.labo`, which serves every other device, float64 and large τ. This module is
imported only where Triton is installed.
"""

import math
from typing import Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .blockwise import loss_and_constants

_MAX_BLOCK = 4096
_WARPS = 8


@triton.jit
def _statistics(
    logits, target, ignored, terms, saved, row_stride, n, k, inverse_tau, log_k, alpha, rho,
    adaptive: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    skip = tl.load(ignored + row) != 0
    logits += row.to(tl.int64) * row_stride
    m = -3.0e38
    s = 0.0
    s_tau = 0.0
    t = 0.0
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
        s_tau = tl.exp(step * inverse_tau) * s_tau + tl.sum(tl.exp(x * inverse_tau), axis=0)
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
        loss = cross_entropy + a * (log_s - (tl.log(s_tau) - log_k) / inverse_tau)
        tl.store(terms + row, loss)
        tl.store(terms + n + row, nll)
        tl.store(terms + 2 * n + row, a)
        tl.store(terms + 3 * n + row, entropy)
        tl.store(terms + 4 * n + row, tl.exp(x_k * inverse_tau) / s_tau)
        tl.store(saved + row, m)
        tl.store(saved + n + row, s)
        tl.store(saved + 2 * n + row, s_tau)
        tl.store(saved + 3 * n + row, a)


@triton.jit
def _gradient(
    logits, target, ignored, saved, scale, grad, row_stride, grad_stride, n, k, inverse_tau, block: tl.constexpr
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
        of_p = factor / tl.load(saved + n + row)
        a = tl.load(saved + 3 * n + row)
        of_p_star = factor * a / tl.load(saved + 2 * n + row)
        label = tl.load(target + row)
        for start in range(0, k, block):
            columns = start + tl.arange(0, block)
            z = tl.load(logits + columns, mask=columns < k, other=float("-inf")).to(tl.float32)
            x = z - m
            g = of_p * tl.exp(x) - of_p_star * tl.exp(x * inverse_tau)
            g -= tl.where(columns == label, factor * (1 - a), 0.0)
            tl.store(grad + columns, g.to(grad.dtype.element_ty), mask=columns < k)


def statistics(
    logits: Tensor, target: Tensor, ignored: Tensor, tau: float, alpha: Optional[float], rho: float
) -> Tuple[Tensor, Tensor]:
    """The terms (5, N) as :func:`.labo.labo_rows` gives them, and what :func:`gradient` needs: (4, N), float32.

    Logits are float32 or narrower, (N, K) with rows that are contiguous.
    """
    n, k = logits.shape
    terms = torch.empty(5, n, dtype=torch.float32, device=logits.device)
    saved = torch.empty(4, n, dtype=torch.float32, device=logits.device)
    if n:
        fixed = 0.0 if alpha is None else alpha
        with torch.cuda.device_of(logits):  # Triton launches on the current device
            _statistics[(n,)](
                *(logits, target, ignored, terms, saved, logits.stride(0), n, k, 1 / tau, math.log(k), fixed, rho),
                adaptive=alpha is None,
                block=_block(k),
                num_warps=_WARPS,
            )
    return terms, saved


def gradient(
    logits: Tensor, target: Tensor, ignored: Tensor, saved: Tensor, tau: float, scale: Tensor, grad: Tensor
) -> None:
    """Write ``scale``·∂R/∂z, (N, K), into ``grad``, which has contiguous rows and may be ``logits``; scale: (N,)."""
    n, k = logits.shape
    if n:
        with torch.cuda.device_of(logits):
            _gradient[(n,)](
                *(
                    logits,
                    target,
                    ignored,
                    saved,
                    scale.contiguous(),
                    grad,
                    logits.stride(0),
                    grad.stride(0),
                    n,
                    k,
                    1 / tau,
                ),
                block=_block(k),
                num_warps=_WARPS,
            )


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
    """What :func:`.labo.labo_rows` does, for logits with contiguous rows."""
    terms, saved = statistics(logits, target, ignored, tau, alpha, rho)
    if grad is not None:
        gradient(logits, target, ignored, saved, tau, torch.ones_like(saved[0]) if scale is None else scale, grad)
    return terms


class TritonLabo(torch.autograd.Function):
    """The terms of :func:`.labo.labo_terms`, five tensors (N,), of which the first is differentiable, once."""

    @staticmethod
    def forward(ctx, logits, target, ignored, tau, alpha, rho):  # type: ignore[override]
        logits = logits if logits.stride(1) == 1 else logits.contiguous()
        terms, saved = statistics(logits, target, ignored, tau, alpha, rho)
        ctx.save_for_backward(logits, target, ignored, saved)
        ctx.tau = tau
        return loss_and_constants(ctx, terms)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_loss, *_):  # type: ignore[override]
        logits, target, ignored, saved = ctx.saved_tensors
        grad = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        gradient(logits, target, ignored, saved, ctx.tau, grad_loss, grad)
        return grad, None, None, None, None, None


def _block(k: int) -> int:
    return min(_MAX_BLOCK, triton.next_power_of_2(k))

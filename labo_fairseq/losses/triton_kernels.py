"""The LABO objective on a GPU: Triton kernels that read the logits once, and once more from cache for their gradient.

A program takes a row. Every thread streams columns of its own and keeps r, the largest z·log₂e so far, and of
y = z·log₂e − r the sums s = Σ 2^y = Σ e^(z−m), s_τ = Σ 2^(y/τ) and t = Σ y·2^y; where its maximum grows, all three are
carried over to the new one. So are they where the sums of the threads are put together at the end, and not before:
threads that wait for each other do not read. For large τ, where s_τ/K differs from 1 in its last digits alone, a thread
also keeps u = Σ (2^(y/τ) − 1); for τ = ∞, which is label smoothing, u = Σ y in the place of s_τ.

The gradient is written by the same program, scaled in float32 before it is rounded; if what it was scaled by was not
what the backward pass is given, it is multiplied once more there. In float16 it waits for the backward pass, whose
scale saves it from 0: only (4, N) numbers live until then. Padding is neither read nor summed.

Half precision is bound by instructions, not by memory: hence powers of 2, for which a GPU has one, and nothing in the
loops that can be outside.

The formulas are those of :mod:`.labo`, which serves every other device and float64. This module is imported only where
Triton is installed.
"""

import math
import os
from dataclasses import dataclass
from typing import ClassVar, Dict, Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

from .blockwise import Block, Rows
from .labo import LARGE_TAU, LaboTerms, Objective

# Columns of a step of the gradient, as many as do on an H200; long rows take more, of more threads, for fewer of them
# are in cache at a time.
_MAX_BLOCK = 4096
_MAX_BLOCK_LONG = 8192
_LONG_ROW = 16384
_COLUMNS_PER_THREAD = 16
# in the place of −∞, so that 0·x is 0 and x − x is 0
_LEAST = tl.constexpr(-3.0e38)
_LOG2_E = tl.constexpr(math.log2(math.e))
_LN_2 = tl.constexpr(math.log(2))
_INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def _exp2(y):
    """2^y; Triton's own takes four instructions, to keep what is below 1e-38."""
    if _INTERPRETED:
        return tl.exp2(y)
    else:
        return libdevice.exp2(y)


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
def _target_of_row(target, logits, k):
    """The class and its logit; class 0 and NaN where ``target`` is no class: the host does not wait to refuse it."""
    label = tl.load(target)
    is_class = (label >= 0) & (label < k)
    label = tl.where(is_class, label, 0)
    return label, tl.where(is_class, tl.load(logits + label).to(tl.float32), float("nan"))


@triton.jit
def _columns_of_threads(k, threads: tl.constexpr, width: tl.constexpr):
    last = (k - 1) // (threads * width) * (threads * width)
    rest = k - last - tl.arange(0, threads) * width
    return (last // threads + tl.minimum(tl.maximum(rest, 0), width)).to(tl.float32)


@triton.jit
def _write_gradient(
    logits, grad, label, z_k, reference, of_p, of_p_star, of_label, k, inverse_tau,
    uniform: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """of_p·2^y − of_p_star·2^(y/τ) − of_label·onehot(label) of a row, in the place of the logits if need be."""
    steps = (k + block - 1) // block
    for step in range(steps):
        # backwards, for the end of the row is what was read last
        columns = (steps - 1 - step) * block + tl.arange(0, block)
        z = tl.load(logits + columns, mask=columns < k, other=0.0).to(tl.float32)
        g = _mixture(tl.fma(z, _LOG2_E, -reference), of_p, of_p_star, inverse_tau, uniform)
        tl.store(grad + columns, g.to(grad.dtype.element_ty), mask=columns < k)
    # once instead of a question at every column; what another thread wrote there comes first
    tl.debug_barrier()
    g_k = _mixture(tl.fma(z_k, _LOG2_E, -reference), of_p, of_p_star, inverse_tau, uniform) - of_label
    tl.store(grad + label, g_k.to(grad.dtype.element_ty))


@triton.jit
def _mixture(y, of_p, of_p_star, inverse_tau, uniform: tl.constexpr):
    mixture = of_p * _exp2(y)
    if uniform:  # whatever y is
        mixture -= of_p_star
    else:
        mixture -= of_p_star * _exp2(y * inverse_tau)
    return mixture


@triton.jit
def _write_zeros(row, k, block: tl.constexpr):
    for start in range(0, k, block):
        columns = start + tl.arange(0, block)
        tl.store(row + columns, tl.zeros([block], dtype=tl.float32).to(row.dtype.element_ty), mask=columns < k)


@triton.jit
def _statistics(
    logits, target, ignored, scale, terms, saved, grad, row_stride, grad_stride, scale_stride, n, k,
    inverse_tau, log_k, alpha, rho, z_loss,
    adaptive: tl.constexpr, large_tau: tl.constexpr, uniform: tl.constexpr, with_grad: tl.constexpr,
    scaled: tl.constexpr, threads: tl.constexpr, width: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    skip = tl.load(ignored + row) != 0
    logits += row.to(tl.int64) * row_stride
    # before any thread may put a gradient there
    label, z_k = _target_of_row(target + row, logits, k)
    tile = (tl.arange(0, threads) * width)[:, None] + tl.arange(0, width)[None, :]
    r = tl.full([threads], _LEAST, tl.float32)
    s = tl.zeros([threads], tl.float32)
    s_tau = tl.zeros([threads], tl.float32)
    t = tl.zeros([threads], tl.float32)
    u = tl.zeros([threads], tl.float32)
    # no pass over the columns where the target is ignored
    for start in range(0, tl.where(skip, 0, k), threads * width):
        inside = start + tile < k
        z = tl.load(logits + start + tile, mask=inside, other=float("-inf")).to(tl.float32)
        new_r = tl.maximum(r, tl.max(z, axis=1) * _LOG2_E)
        step = tl.maximum(r - new_r, _LEAST)
        kept = _exp2(step)
        y = tl.maximum(tl.fma(z, _LOG2_E, -new_r[:, None]), _LEAST)
        e = _exp2(y)
        t = kept * (t + step * s) + tl.sum(e * y, axis=1)
        s = kept * s + tl.sum(e, axis=1)
        # columns of a thread so far; only the last tile may be cut short
        seen = start // threads
        if uniform:
            u += seen * step + tl.sum(tl.where(inside, y, 0.0), axis=1)
        else:
            kept_tau = _exp2(step * inverse_tau)
            s_tau = kept_tau * s_tau + tl.sum(_exp2(y * inverse_tau), axis=1)
            if large_tau:
                new_u = tl.where(inside, _expm1(y * (_LN_2 * inverse_tau)), 0.0)
                u = kept_tau * u + seen * _expm1(step * (_LN_2 * inverse_tau)) + tl.sum(new_u, axis=1)
        r = new_r
    if skip:
        for field in tl.static_range(5):
            tl.store(terms + field * n + row, 0.0)
        if with_grad:
            _write_zeros(grad + row.to(tl.int64) * grad_stride, k, block)
    else:
        columns = _columns_of_threads(k, threads, width)
        reference = tl.max(r, axis=0)
        step = tl.maximum(r - reference, _LEAST)
        kept = _exp2(step)
        row_t = _LN_2 * tl.sum(kept * (t + step * s), axis=0)
        row_s = tl.sum(kept * s, axis=0)
        y_k = tl.fma(z_k, _LOG2_E, -reference)
        log_s = tl.log(row_s)
        entropy = log_s - row_t / row_s
        a = alpha
        if adaptive:
            a = 1 - rho * entropy / log_k
        nll = log_s - _LN_2 * y_k
        # 0·inf is 0 here, as in the PyTorch path
        cross_entropy = tl.where(a == 1, 0.0, (1 - a) * nll)
        if uniform:
            row_s_tau = k.to(tl.float32)
            p_star = 1 / row_s_tau
            annealed = _LN_2 * tl.sum(u + columns * step, axis=0) / row_s_tau
        else:
            kept_tau = _exp2(step * inverse_tau)
            row_s_tau = tl.sum(kept_tau * s_tau, axis=0)
            p_star = _exp2(y_k * inverse_tau) / row_s_tau
            log_mean = tl.log(row_s_tau) - log_k
            if large_tau:
                row_u = tl.sum(kept_tau * u + columns * _expm1(step * (_LN_2 * inverse_tau)), axis=0)
                log_mean = tl.where(row_u > -0.5 * k, _log1p(row_u / k), log_mean)
            annealed = log_mean / inverse_tau
        loss = cross_entropy + a * (log_s - annealed)
        lse = _LN_2 * reference + log_s
        tl.store(terms + row, loss + z_loss * lse * lse)
        tl.store(terms + n + row, nll)
        tl.store(terms + 2 * n + row, a)
        tl.store(terms + 3 * n + row, entropy)
        tl.store(terms + 4 * n + row, p_star)
        of_p = (1 + 2 * z_loss * lse) / row_s
        of_p_star = a / row_s_tau
        if with_grad:
            factor = 1.0
            if scaled:
                factor = tl.load(scale + row * scale_stride).to(tl.float32)
            _write_gradient(
                logits, grad + row.to(tl.int64) * grad_stride, label, z_k, reference,
                factor * of_p, factor * of_p_star, factor * (1 - a), k, inverse_tau, uniform, block,
            )  # fmt: skip
        else:
            tl.store(saved + row, reference)
            tl.store(saved + n + row, of_p)
            tl.store(saved + 2 * n + row, of_p_star)
            tl.store(saved + 3 * n + row, 1 - a)


@triton.jit
def _gradient(
    logits, target, ignored, saved, scale, grad, row_stride, grad_stride, scale_stride, n, k, inverse_tau,
    uniform: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    logits += row.to(tl.int64) * row_stride
    grad += row.to(tl.int64) * grad_stride
    if tl.load(ignored + row) != 0:
        _write_zeros(grad, k, block)
    else:
        label, z_k = _target_of_row(target + row, logits, k)
        factor = tl.load(scale + row * scale_stride).to(tl.float32)
        of_p, of_p_star = factor * tl.load(saved + n + row), factor * tl.load(saved + 2 * n + row)
        _write_gradient(
            logits, grad, label, z_k, tl.load(saved + row),
            of_p, of_p_star, factor * tl.load(saved + 3 * n + row), k, inverse_tau, uniform, block,
        )  # fmt: skip


@triton.jit
def _rescale(
    rows, scale, wanted, ignored, row_stride, scale_stride, wanted_stride, k, scaled: tl.constexpr, block: tl.constexpr
):
    row = tl.program_id(0)
    rows += row.to(tl.int64) * row_stride
    by = tl.load(wanted + row * wanted_stride).to(tl.float32)
    if scaled:
        by = by / tl.load(scale + row * scale_stride).to(tl.float32)
    if (tl.load(ignored + row) == 0) & (by != 1):
        for start in range(0, k, block):
            columns = start + tl.arange(0, block)
            value = tl.load(rows + columns, mask=columns < k, other=0.0).to(tl.float32)
            tl.store(rows + columns, (by * value).to(rows.dtype.element_ty), mask=columns < k)


@dataclass(frozen=True)
class TritonKernel:
    """A :class:`.blockwise.RowKernel` for class indices as targets, with nothing ``beside`` them.

    Logits are float32 or narrower. A target that is no class makes loss and gradient of its row NaN.

    Args:
        options: of the objective.
        block: the same in PyTorch, for second derivatives.
        usual_scale: (), see :class:`.blockwise.BlockKernel`; None is 1.
    """

    options: Objective
    block: Block
    usual_scale: Optional[Tensor] = None
    fields: ClassVar[int] = len(LaboTerms._fields)
    rows_together: ClassVar[int] = 1

    def reduce(self, rows: Rows, grad: Optional[Tensor] = None, scale: Optional[Tensor] = None) -> Tensor:
        """See :class:`.blockwise.Kernel`."""
        return self._reduce(rows, grad, scale)[0]

    def reduce_and_save(self, rows: Rows) -> Tuple[Tensor, Tuple[Tensor, ...]]:
        """The terms, and what saves :meth:`gradient` a pass over the logits: four numbers of every row."""
        terms, saved = self._reduce(rows)
        return terms, (saved,)

    def _reduce(
        self, rows: Rows, grad: Optional[Tensor] = None, scale: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor]:
        logits = _contiguous_rows(rows.logits)
        n, k = logits.shape
        terms = torch.empty(self.fields, n, dtype=torch.float32, device=logits.device)
        saved = terms if grad is not None else terms.new_empty((4, n))
        options, alpha = self.options, self.options.fixed_alpha
        threads, width = _tile(k, logits.element_size())
        if n:
            with torch.cuda.device_of(logits):  # Triton launches on the current device
                _statistics[(n,)](
                    *(logits, rows.target, rows.ignored, terms if scale is None else scale, terms, saved),
                    *(logits if grad is None else grad, logits.stride(0), 0 if grad is None else grad.stride(0)),
                    0 if scale is None else scale.stride(0),
                    *(n, k, 1 / options.tau, math.log(k), 0.0 if alpha is None else alpha, options.rho, options.z_loss),
                    adaptive=alpha is None,
                    large_tau=LARGE_TAU < options.tau < math.inf,
                    uniform=options.tau == math.inf,
                    with_grad=grad is not None,
                    scaled=scale is not None,
                    threads=threads,
                    width=width,
                    **_shape(k),
                )
        return terms, saved

    def gradient(self, rows: Rows, saved: Tuple[Tensor, ...], scale: Tensor) -> Tensor:
        """``scale``·∂R/∂z, (N, K), of the dtype of the logits."""
        logits = _contiguous_rows(rows.logits)
        n, k = logits.shape
        grad = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        if not saved:  # an early gradient was given away
            self.reduce(rows, grad, scale)
        elif n:
            with torch.cuda.device_of(logits):
                _gradient[(n,)](
                    *(logits, rows.target, rows.ignored, *saved, scale, grad),
                    *(logits.stride(0), grad.stride(0), scale.stride(0), n, k, 1 / self.options.tau),
                    uniform=self.options.tau == math.inf,
                    **_shape(k),
                )
        return grad

    def makes_gradient_early(self, logits: Tensor) -> bool:
        """In the forward pass the row is in cache; float16 is too narrow for a gradient without its scale."""
        return logits.dtype != torch.float16

    def reduce_early(self, rows: Rows) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
        """See :class:`.blockwise.RowKernel`."""
        grad = torch.empty(rows.logits.shape, dtype=rows.logits.dtype, device=rows.logits.device)
        scale = None if self.usual_scale is None else self.usual_scale.expand(len(grad)).float()
        return self.reduce(rows, grad, scale), grad, scale

    def rescale(self, grad: Tensor, scale: Optional[Tensor], wanted: Tensor, ignored: Tensor) -> None:
        """See :class:`.blockwise.RowKernel`; the host does not wait to learn whether there is anything to do."""
        n, k = grad.shape
        if n:
            with torch.cuda.device_of(grad):
                _rescale[(n,)](
                    *(grad, wanted if scale is None else scale, wanted, ignored, grad.stride(0)),
                    *(0 if scale is None else scale.stride(0), wanted.stride(0), k),
                    scaled=scale is not None,
                    **_shape(k),
                )


def _contiguous_rows(logits: Tensor) -> Tensor:
    return logits if logits.stride(1) == 1 else logits.contiguous()


def _shape(k: int) -> Dict[str, int]:
    """Of a program for rows of ``k`` columns: how many it takes in a step, and its threads, in warps of 32."""
    most = _MAX_BLOCK if k <= _LONG_ROW else _MAX_BLOCK_LONG
    return {"block": min(most, 1 << (k - 1).bit_length()), "num_warps": most // (32 * _COLUMNS_PER_THREAD) or 1}


def _tile(k: int, item_size: int) -> Tuple[int, int]:
    """Threads, and the columns that each reads at a time: 16 bytes."""
    shape = _shape(k)
    width = min(16 // item_size, shape["block"])
    return min(32 * shape["num_warps"], shape["block"] // width), width

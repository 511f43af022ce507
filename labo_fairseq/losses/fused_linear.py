"""Projection to the vocabulary and loss in one: the logits of all tokens are never in memory at once.

A chunk of tokens is projected, its loss taken, its logits overwritten with their gradient, and that multiplied
into the gradients of hidden states, weight and bias: in the forward pass, so each chunk is projected once.

float16 is the exception. There a gradient must be scaled before it is rounded, and the scale is known in the
backward pass alone, which therefore projects each chunk a second time. Second derivatives, ``torch.func`` and
``torch.compile`` are exceptions too: they need the logits whole.
"""

from typing import Iterator, List, NamedTuple, Optional, Tuple, Union

import torch
from torch import Tensor
from torch.nn.functional import linear

from .blockwise import (
    Kernel,
    Rows,
    check_classes,
    is_compiling,
    is_transformed,
    loss_and_constants,
    takes_whole_gradient,
    targets_and_mask,
    whole_gradient,
)
from .labo import ADAPTIVE, LaboOptions, LaboTerms, Objective, labo_kernel, labo_terms_with

# A chunk has so many logits, or so many rows if these are more: enough to keep a matrix product busy, few beside those
# of a batch. On an H200 larger ones save at most a fifth of the time.
_CHUNK_ELEMENTS, _CHUNK_ROWS = 1 << 23, 64
_CHUNK_ELEMENTS_ELSEWHERE, _CHUNK_ROWS_ELSEWHERE = 1 << 25, 1024


def linear_labo_terms(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    tau: float = 1.25,
    alpha: Union[str, float] = ADAPTIVE,
    rho: float = 0.5,
    ignore_index: Optional[int] = -100,
    bias: Optional[Tensor] = None,
) -> LaboTerms:
    """:func:`labo_terms` of the logits ``hidden @ weight.T + bias``, differentiable in all three.

    Args:
        hidden: (N, D), under autocast of any dtype, otherwise of the dtype of ``weight``.
        weight: (K, D).
        target: (N,), int64, class indices or ``ignore_index``.
        tau, alpha, rho, ignore_index: see :func:`labo_terms`.
        bias: (K,).

    Raises:
        ValueError: an option out of range, shapes that do not fit, or fewer than two classes.
    """
    return linear_labo_terms_with(LaboOptions(tau, alpha, rho), hidden, weight, target, ignore_index, bias)


def linear_labo_terms_with(
    options: Objective,
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    ignore_index: Optional[int] = -100,
    bias: Optional[Tensor] = None,
    support: Optional[Tensor] = None,
    token_weight: Optional[Tensor] = None,
) -> LaboTerms:
    """:func:`linear_labo_terms` of options that are checked already.

    Args:
        support: (K,), bool, as in :func:`.labo.labo_terms_with`.
        token_weight: (N,), a constant that ``loss`` is multiplied by. Multiplying afterwards gives the same and
            projects each chunk twice.
    """
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.size(1) != weight.size(1) or target.shape != hidden.shape[:1]:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (hidden, weight, target))
        raise ValueError(f"hidden, weight and target must be (N, D), (K, D) and (N,), got {shapes}")
    check_classes(weight.size(0))
    if is_compiling() or any(is_transformed(tensor) for tensor in (hidden, weight, bias) if tensor is not None):
        terms = labo_terms_with(options, linear(hidden, weight, bias), target, ignore_index, support)
        return terms if token_weight is None else terms._replace(loss=terms.loss * token_weight)
    target, ignored = targets_and_mask(target, ignore_index)
    hidden, weight, bias = as_multiplied(hidden, weight, bias)
    beside = () if support is None else (support.expand(len(hidden), -1),)
    kernel = labo_kernel(options, hidden, plain=support is not None)
    return LaboTerms(*linear_terms(kernel, hidden, weight, bias, target, ignored, token_weight, beside))


def linear_terms(
    kernel: Kernel,
    hidden: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    target: Tensor,
    ignored: Tensor,
    token_weight: Optional[Tensor] = None,
    beside: Tuple[Tensor, ...] = (),
) -> Tuple[Tensor, ...]:
    """The terms of a ``kernel``, see :func:`.blockwise.differentiable_terms`; what is multiplied has one dtype."""
    early = torch.is_grad_enabled() and hidden.dtype != torch.float16
    return _LinearLoss.apply(hidden, weight, bias, target, ignored, token_weight, kernel, early, *beside)


def linear_argmax(hidden: Tensor, weight: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    """The likeliest class of each row of ``hidden``, (N,), int64, to report an accuracy: projects once more."""
    with torch.no_grad():
        hidden, weight, bias = as_multiplied(hidden, weight, bias)
        best = torch.empty(hidden.size(0), dtype=torch.long, device=hidden.device)
        for rows, logits in _chunks(hidden, weight, bias):
            best[rows] = logits.argmax(-1)
    return best


class _Projection(NamedTuple):
    """Rows that are projected, with their targets as in :class:`.blockwise.Rows`."""

    hidden: Tensor
    weight: Tensor
    bias: Optional[Tensor]
    target: Tensor
    ignored: Tensor
    beside: Tuple[Tensor, ...]

    def rows_of(self, logits: Tensor, part: slice) -> Rows:
        """The logits of a part of the rows, and what belongs to them."""
        return Rows.of(logits, *(tensor[part] for tensor in (self.target, self.ignored, *self.beside)))


class _LinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, target, ignored, token_weight, kernel, early, *beside):
        needed = ctx.needs_input_grad[:3] if early else (False,) * 3
        inputs = _Projection(hidden, weight, bias, target, ignored, beside)
        terms, grads = _project_and_reduce(inputs, kernel, needed, token_weight)
        if token_weight is not None:
            terms[0].mul_(token_weight)
        ctx.grads, ctx.kernel = grads if early else None, kernel
        ctx.save_for_backward(hidden, weight, bias, target, ignored, token_weight, *beside)
        return loss_and_constants(ctx, terms)

    @staticmethod
    def backward(ctx, grad_loss, *_):
        if grad_loss is None:
            return (None,) * len(ctx.needs_input_grad)
        # Given away, for whoever gets them may write to them, be it through a view: a second use computes them again.
        grads, ctx.grads = ctx.grads, None
        hidden, weight, bias, target, ignored, token_weight, *beside = ctx.saved_tensors
        inputs = _Projection(hidden, weight, bias, target, ignored, tuple(beside))
        needed = ctx.needs_input_grad[:3]
        whole = takes_whole_gradient(grad_loss)
        # Tokens are already summed in the gradient of the weight: too late for a scale of their own.
        if whole or grads is None or not (grad_loss.eq(grad_loss[:1]) & grad_loss.isfinite()).all():
            scale = grad_loss if token_weight is None else grad_loss * token_weight
            if whole:
                logits = linear(hidden, weight, bias)
                slope = whole_gradient(ctx.kernel.block, inputs.rows_of(logits, slice(None)), scale)
                made = (lambda: slope @ weight, lambda: slope.t() @ hidden, lambda: slope.sum(dim=0))
                grads = [make() if need else None for make, need in zip(made, needed)]
            else:
                grads = _project_and_reduce(inputs, ctx.kernel, needed, scale)[1]
        elif not grad_loss.eq(1).all():
            for grad in grads:
                if grad is not None:
                    grad.mul_(grad_loss[0])
        return (*grads, *(None,) * (5 + len(beside)))


def _project_and_reduce(
    inputs: _Projection, kernel: Kernel, needed: Tuple[bool, ...], scale: Optional[Tensor] = None
) -> Tuple[Tensor, List[Optional[Tensor]]]:
    """The terms (F, N), and the gradients of hidden, weight and bias as far as they are ``needed``, ``scale``-fold."""
    hidden, weight, bias = inputs[:3]
    wide = torch.promote_types(hidden.dtype, torch.float32)
    terms = torch.empty(kernel.fields, hidden.size(0), dtype=wide, device=hidden.device)
    hidden_grad = torch.empty_like(hidden) if needed[0] else None
    weight_grad = torch.zeros(weight.shape, dtype=wide, device=weight.device) if needed[1] else None
    bias_grad = torch.zeros(weight.size(0), dtype=wide, device=weight.device) if needed[2] else None
    for rows, logits in _chunks(hidden, weight, bias, kernel.rows_together):
        grad = logits if any(needed) else None
        part = None if scale is None else scale[rows]
        terms[:, rows] = kernel.reduce(inputs.rows_of(logits, rows), grad, part)
        if hidden_grad is not None:
            torch.mm(logits, weight, out=hidden_grad[rows])
        if weight_grad is not None:
            if weight_grad.dtype == logits.dtype:
                weight_grad.addmm_(logits.t(), hidden[rows])
            else:
                weight_grad.add_(torch.mm(logits.t(), hidden[rows]))
        if bias_grad is not None:
            bias_grad.add_(logits.sum(dim=0, dtype=wide))
    grads = [hidden_grad, weight_grad, bias_grad]
    return terms, [None if grad is None else grad.to(hidden.dtype) for grad in grads]


def _chunks(
    hidden: Tensor, weight: Tensor, bias: Optional[Tensor], together: int = 1
) -> Iterator[Tuple[slice, Tensor]]:
    """Slices of the rows and their logits, in memory that the next chunk uses again.

    Args:
        together: so many rows are never cut apart.
    """
    n, k = hidden.size(0), weight.size(0)
    of_cpu, elsewhere = (_CHUNK_ROWS, _CHUNK_ELEMENTS), (_CHUNK_ROWS_ELSEWHERE, _CHUNK_ELEMENTS_ELSEWHERE)
    least_rows, elements = of_cpu if hidden.device.type == "cpu" else elsewhere
    size = max(least_rows, elements // k) // together * together
    memory = torch.empty(min(size, n), k, dtype=hidden.dtype, device=hidden.device)
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        logits = memory[: rows.stop - start]
        if bias is None:
            torch.mm(hidden[rows], weight.t(), out=logits)
        else:
            torch.addmm(bias, hidden[rows], weight.t(), out=logits)
        yield rows, logits


def as_multiplied(hidden: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
    """All three in the dtype that autocast, if it is on, would multiply them in."""
    dtype = linear(hidden[:0], weight[:0]).dtype
    return hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)

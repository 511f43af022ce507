"""Projection to the vocabulary and loss in one: the logits of all tokens are never in memory at once.

A chunk of tokens is projected, its loss taken, its logits overwritten with their gradient, and that multiplied
into the gradients of hidden states, weight and bias: in the forward pass, so each chunk is projected once.

float16 is the exception. There a gradient must be scaled before it is rounded, and the scale is known in the
backward pass alone, which therefore projects each chunk a second time.
"""

import math
from typing import Iterator, List, Optional, Tuple, Union

import torch
from torch import Tensor
from torch.nn.functional import linear

from .blockwise import loss_and_constants
from .labo import ADAPTIVE, LaboLoss, LaboTerms, check_options, labo_rows

# Logits in a chunk: enough rows to keep a matrix product busy, few beside those of a batch.
_CHUNK_ELEMENTS = 1 << 23
_CHUNK_ROWS = 64


def linear_labo_terms(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    tau: float = 1.25,
    alpha: Union[str, float] = ADAPTIVE,
    rho: float = 0.5,
    ignore_index: int = -100,
    bias: Optional[Tensor] = None,
) -> LaboTerms:
    """:func:`labo_terms` of the logits ``hidden @ weight.T + bias``, differentiable in all three, once.

    Args:
        hidden: (N, D), under autocast of any dtype, otherwise of the dtype of ``weight``.
        weight: (K, D).
        target: (N,), int64, class indices or ``ignore_index``.
        tau, alpha, rho, ignore_index: see :func:`labo_terms`.
        bias: (K,).

    Raises:
        ValueError: an option out of range, shapes that do not fit, or fewer than two classes.
    """
    return _terms(hidden, weight, bias, target, ignore_index, tau, check_options(tau, alpha, rho), rho)


def linear_smoothed_terms(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    epsilon: float,
    ignore_index: int = -100,
    bias: Optional[Tensor] = None,
) -> LaboTerms:
    """The terms of fairseq's label smoothing, which spreads ``epsilon`` over the K − 1 classes beside the target.

    For the other arguments and the errors see :func:`linear_labo_terms`.
    """

    k = weight.size(0)
    # Eq. 1 spreads α over all K classes: its α is the larger one
    alpha = epsilon * k / max(k - 1, 1)
    return _terms(hidden, weight, bias, target, ignore_index, math.inf, alpha, rho=0.5)


def linear_argmax(hidden: Tensor, weight: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    """The likeliest class of each row of ``hidden``, (N,), int64, to report an accuracy: projects once more."""
    with torch.no_grad():
        hidden, weight, bias = _as_multiplied(hidden, weight, bias)
        best = torch.empty(hidden.size(0), dtype=torch.long, device=hidden.device)
        for rows, logits in _chunks(hidden, weight, bias):
            best[rows] = logits.argmax(-1)
    return best


class LinearLaboLoss(LaboLoss):
    """:class:`LaboLoss` of a linear layer's output, for large vocabularies: the logits are never whole in memory.

    >>> loss = LinearLaboLoss(tau=1.25)(hidden, layer.weight, target, layer.bias)

    Shapes: hidden (…, D), weight (K, D), target (…), bias (K) or None. The options are those of ``LaboLoss``.

    Raises:
        ValueError: an option out of range, or shapes that do not fit.
    """

    def forward(  # type: ignore[override]
        self, hidden: Tensor, weight: Tensor, target: Tensor, bias: Optional[Tensor] = None
    ) -> Tensor:
        if target.shape != hidden.shape[:-1]:
            raise ValueError(f"hidden {tuple(hidden.shape)} and target {tuple(target.shape)} do not fit each other")
        rows, options = hidden.reshape(-1, hidden.size(-1)), (self.tau, self.alpha, self.rho, self.ignore_index)
        return self.reduce(linear_labo_terms(rows, weight, target.reshape(-1), *options, bias).loss, target)


class _LinearLabo(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, target, ignored, options, differentiable):  # type: ignore[override]
        early = differentiable and hidden.dtype != torch.float16
        needed = ctx.needs_input_grad[:3] if early else (False,) * 3
        terms, grads = _project_and_reduce(hidden, weight, bias, target, ignored, options, needed)
        ctx.grads, ctx.options = grads if early else None, options
        ctx.save_for_backward(hidden, weight, bias, target, ignored)
        return loss_and_constants(ctx, terms)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_loss, *_):  # type: ignore[override]
        # Given away, for whoever gets them may write to them, be it through a view: a second use computes them again.
        grads, ctx.grads = ctx.grads, None
        # Tokens are already summed in the gradient of the weight: too late for a scale of their own.
        if grads is None or not grad_loss.eq(grad_loss[:1]).all():
            _, grads = _project_and_reduce(*ctx.saved_tensors, ctx.options, ctx.needs_input_grad[:3], grad_loss)
        elif not grad_loss.eq(1).all():
            for grad in grads:
                if grad is not None:
                    grad.mul_(grad_loss[0])
        return (*grads, None, None, None, None)


def _terms(
    hidden: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    target: Tensor,
    ignore_index: int,
    tau: float,
    alpha: Optional[float],
    rho: float,
) -> LaboTerms:
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.size(1) != weight.size(1) or target.shape != hidden.shape[:1]:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (hidden, weight, target))
        raise ValueError(f"hidden (N, D), weight (K, D) and target (N,) are needed, not {shapes}")
    if weight.size(0) < 2:
        raise ValueError(f"at least two classes are needed, not {weight.size(0)}")
    ignored = target.eq(ignore_index)
    return LaboTerms(
        *_LinearLabo.apply(
            *_as_multiplied(hidden, weight, bias),
            target.masked_fill(ignored, 0),
            ignored,
            (tau, alpha, rho),
            torch.is_grad_enabled(),
        )
    )


def _project_and_reduce(
    hidden: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    target: Tensor,
    ignored: Tensor,
    options: Tuple[float, Optional[float], float],
    needed: Tuple[bool, ...],
    scale: Optional[Tensor] = None,
) -> Tuple[Tensor, List[Optional[Tensor]]]:
    """The terms (5, N), and the gradients of hidden, weight and bias as far as they are ``needed``."""
    wide = torch.promote_types(hidden.dtype, torch.float32)
    terms = torch.empty(5, hidden.size(0), dtype=wide, device=hidden.device)
    hidden_grad = torch.empty_like(hidden) if needed[0] else None
    weight_grad = torch.zeros(weight.shape, dtype=wide, device=weight.device) if needed[1] else None
    bias_grad = torch.zeros(weight.size(0), dtype=wide, device=weight.device) if needed[2] else None
    for rows, logits in _chunks(hidden, weight, bias):
        grad = logits if any(needed) else None
        part = None if scale is None else scale[rows]
        terms[:, rows] = labo_rows(logits, target[rows], ignored[rows], *options, grad, part)
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


def _chunks(hidden: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Iterator[Tuple[slice, Tensor]]:
    """Rows and their logits, in memory that the next chunk uses again."""
    n, k = hidden.size(0), weight.size(0)
    size = max(_CHUNK_ROWS, _CHUNK_ELEMENTS // k)
    memory = torch.empty(min(size, n), k, dtype=hidden.dtype, device=hidden.device)
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        logits = memory[: rows.stop - start]
        if bias is None:
            torch.mm(hidden[rows], weight.t(), out=logits)
        else:
            torch.addmm(bias, hidden[rows], weight.t(), out=logits)
        yield rows, logits


def _as_multiplied(hidden: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
    """All three in the dtype that autocast, if it is on, would multiply them in."""
    dtype = linear(hidden[:0], weight[:0]).dtype
    return hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)

"""What the losses of one row of logits a token share: blocks of rows, the dtype of sums, and the autograd function.

A loss is written for a block of rows that stays in cache: a function of logits ``z`` (n, K) and class indices
(n, 1) that returns its terms, each (n,), the loss first, and, if asked to, ∂loss/∂z. The rest is here.
"""

import math
from functools import partial
from typing import Callable, Iterator, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

# Rows are processed in blocks: on a CPU small enough for the temporaries to stay in cache and large enough for
# every thread to have its share, on a GPU small enough for them not to matter beside the logits.
_BLOCK_ELEMENTS_PER_THREAD = 1 << 17
_BLOCK_ELEMENTS_ELSEWHERE = 1 << 26


class TokenTerms(NamedTuple):
    """Per-token results of a loss, each of shape (N,), 0 where the target is ignored."""

    loss: Tensor  # in nats; the only differentiable one
    nll: Tensor  # −log p_k, in nats
    entropy: Tensor  # H(p), in nats


class Prediction(NamedTuple):
    """What a block of logits says."""

    x: Tensor  # (n, K), z − max z, finite where z is −inf, so that 0·x is 0
    p: Tensor  # (n, K), softmax(z)
    log_s: Tensor  # (n,), log Σ e^x
    nll: Tensor  # (n,), −log p_k
    entropy: Tensor  # (n,), H(p)


#: logits (n, K), indices (n, 1), per-row tensors…, whether the gradient is wanted → terms and ∂loss/∂z
Block = Callable[..., Tuple[List[Tensor], Optional[Tensor]]]


def predict(z: Tensor, index: Tensor) -> Prediction:
    """The prediction of logits (n, K) and its probability of the classes ``index``, (n, 1)."""
    m = z.amax(dim=-1, keepdim=True)
    nll = (m - z.gather(-1, index)).squeeze(-1)
    x = (z - m).clamp_(min=torch.finfo(z.dtype).min)
    p = x.softmax(dim=-1)
    log_s = -p.amax(dim=-1).log()  # max p = e^0 / Σ e^x
    nll += log_s
    entropy = log_s - (p * x).sum(dim=-1)
    return Prediction(x, p, log_s, nll, entropy)


def check_not_negative(name: str, value: float) -> None:
    """ValueError names the option, its value and its range."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value}: it must be a finite number, 0 or more")


def times(weight: float, value: Tensor) -> Tensor:
    """weight·value, where 0·inf is 0: a target of probability 0 costs nothing when its label has no mass."""
    return weight * value if weight else torch.zeros_like(value)


def reduce_rows(
    block: Block,
    fields: int,
    logits: Tensor,
    target: Tensor,
    ignored: Tensor,
    grad: Optional[Tensor] = None,
    scale: Optional[Tensor] = None,
    beside: Tuple[Tensor, ...] = (),
) -> Tensor:
    """The terms (fields, N) of ``block`` over all rows, without autograd.

    Args:
        target: (N,), any class index where ``ignored``, (N,) bool, is true.
        grad: (N, K), takes ``scale``·∂loss/∂z where it is given. It may be ``logits`` itself.
        scale: (N,), one where it is not given. It is applied before rounding to the dtype of ``grad``.
        beside: tensors (N, …) whose rows ``block`` is given after the indices.
    """
    terms = torch.empty(fields, logits.size(0), dtype=accumulator(logits), device=logits.device)
    for rows in _blocks(logits):
        z = logits[rows].to(terms.dtype)
        values, slope = block(z, target[rows, None], *(tensor[rows] for tensor in beside), with_grad=grad is not None)
        terms[:, rows] = torch.stack(values)
        if grad is not None:
            torch.mul(slope, 1.0 if scale is None else scale[rows, None], out=grad[rows])
    if grad is not None:
        grad.index_fill_(0, ignored.nonzero().squeeze(-1), 0.0)
    return terms.masked_fill_(ignored, 0.0)


def rows_and_mask(logits: Tensor, target: Tensor, ignore_index: int) -> Tuple[Tensor, Tensor]:
    """The targets with 0 where they are to be ignored, and the mask of these, both (N,).

    Raises:
        ValueError: not logits (N, K) and target (N,), or fewer than two classes.
    """
    if logits.dim() != 2 or target.shape != logits.shape[:1]:
        raise ValueError(
            f"logits (N, K) and target (N,) are needed, not {tuple(logits.shape)} and {tuple(target.shape)}"
        )
    if logits.size(1) < 2:
        raise ValueError(f"at least two classes are needed, not {logits.size(1)}")
    ignored = target.eq(ignore_index)
    return target.masked_fill(ignored, 0), ignored


def differentiable_rows(
    terms: Callable[..., Tensor], logits: Tensor, target: Tensor, ignored: Tensor
) -> Tuple[Tensor, ...]:
    """The terms that ``terms(logits, target, ignored, grad=…, scale=…)`` gives, the first differentiable, once."""
    return _RowLoss.apply(logits, target, ignored, terms, torch.is_grad_enabled() and logits.requires_grad)


def token_terms(
    block: Block, logits: Tensor, target: Tensor, ignore_index: int, beside: Tuple[Tensor, ...] = ()
) -> TokenTerms:
    """The terms of a ``block`` that gives the fields of :class:`TokenTerms`, the loss differentiable, once.

    For ``beside`` see :func:`reduce_rows`, for the errors :func:`rows_and_mask`.
    """
    target, ignored = rows_and_mask(logits, target, ignore_index)
    rows = partial(reduce_rows, block, len(TokenTerms._fields), beside=beside)
    return TokenTerms(*differentiable_rows(rows, logits, target, ignored))


class _RowLoss(torch.autograd.Function):
    # On a CPU the gradient is made in the forward pass, while p is in cache; on other devices memory is dearer
    # than computing twice, and in half precision the scale must be known before rounding. It never takes the place
    # of the logits: nothing tells who else will read them (an argmax, a second loss or backward pass).
    @staticmethod
    def forward(ctx, logits, target, ignored, terms, differentiable):  # type: ignore[override]
        early = logits.device.type == "cpu" and logits.dtype == accumulator(logits)
        ctx.grad = torch.empty(logits.shape, dtype=logits.dtype) if early and differentiable else None
        ctx.terms = terms
        ctx.save_for_backward(logits, target, ignored)
        return loss_and_constants(ctx, terms(logits, target, ignored, grad=ctx.grad))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_loss, *_):  # type: ignore[override]
        # Given away, for whoever gets it may write to it, be it through a view: a second use computes it again.
        grad, ctx.grad = ctx.grad, None
        if grad is None:
            logits, target, ignored = ctx.saved_tensors
            grad = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
            ctx.terms(logits, target, ignored, grad=grad, scale=grad_loss)
        elif not grad_loss.eq(1).all():  # a summed loss needs no second pass over the gradient
            grad.mul_(grad_loss[:, None])
        return grad, None, None, None, None


def loss_and_constants(ctx, terms: Tensor) -> Tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
    """What the forward pass of an autograd function returns of its terms (F, N): only the first has a gradient."""
    loss, *constants = terms.unbind()
    ctx.mark_non_differentiable(*constants)
    return (loss, *constants)


def accumulator(logits: Tensor) -> torch.dtype:
    """The dtype of sums over these logits."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _blocks(logits: Tensor) -> Iterator[slice]:
    n, k = logits.shape
    on_cpu = logits.device.type == "cpu"
    elements = _BLOCK_ELEMENTS_PER_THREAD * torch.get_num_threads() if on_cpu else _BLOCK_ELEMENTS_ELSEWHERE
    size = max(1, elements // k)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))

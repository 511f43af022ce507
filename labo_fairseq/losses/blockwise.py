"""What the losses of one row of logits per token share: blocks of rows, the dtype of sums, and the autograd functions.

A loss is written once, for a block of rows that stays in cache: a function of logits ``z`` (n, K) and labels that
returns its terms, each (n,), the loss first, and, where asked to, ∂loss/∂z. The rest is here:

- :class:`BlockKernel` runs it block by block, without autograd, in little memory.
- :func:`differentiable_terms` makes the loss differentiable. A second derivative is the derivative of the gradient
  that the loss returns (what finite differences of it give), made by autograd from the same block; so is what
  ``torch.func`` and ``torch.compile`` transform. These take all rows at once.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Callable, ClassVar, Iterator, List, NamedTuple, Optional, Protocol, Tuple, Union

import torch
from torch import Tensor
from torch.autograd import forward_ad

# Rows are processed in blocks: on a CPU small enough for the temporaries to stay in cache and large enough for what
# PyTorch takes to start its operations not to matter, on a GPU small enough not to matter beside the logits.
_BLOCK_ELEMENTS_PER_THREAD = 1 << 18
_BLOCK_ELEMENTS_ELSEWHERE = 1 << 26


class TokenTerms(NamedTuple):
    """Per-token results of a loss, each of shape (N,), 0 where the target is ignored."""

    loss: Tensor  # in nats; the only differentiable one
    nll: Tensor  # −log p_k, in nats
    entropy: Tensor  # H(p), in nats


class Quantity(NamedTuple):
    """A per-token quantity, logged as its mean over tokens in addition to loss and nll."""

    label: str  # in figures
    unit: str = ""  # in the log; "bits": the terms are in nats


class Rows(NamedTuple):
    """Logits of tokens, and what their loss needs beside them."""

    logits: Tensor  # (N, K)
    target: Tensor  # (N,), int64, any class index where ``ignored``; or distributions (N, K)
    ignored: Tensor  # (N,), bool
    beside: Tuple[Tensor, ...] = ()  # (N, …), whose rows a block is given after the labels

    @classmethod
    def of(cls, logits: Tensor, target: Tensor, ignored: Tensor, *beside: Tensor) -> "Rows":
        """Build from the flat argument list of autograd.Function.apply."""
        return cls(logits, target, ignored, beside)

    @property
    def tensors(self) -> Tuple[Tensor, ...]:
        return (*self[:3], *self.beside)


class Prediction(NamedTuple):
    """What a block of logits says."""

    x: Tensor  # (n, K), z − max z, finite where z is −inf, so that 0·x is 0
    p: Tensor  # (n, K), softmax(z)
    log_s: Tensor  # (n,), log Σ e^x
    nll: Tensor  # (n,), −log p_k
    entropy: Tensor  # (n,), H(p)


#: logits (n, K), labels, per-row tensors…, whether the gradient is wanted → terms and ∂loss/∂z.
#: Labels are indices (n, 1), int64, or distributions (n, K), of the dtype of the logits.
Block = Callable[..., Tuple[List[Tensor], Optional[Tensor]]]


def predict(z: Tensor, label: Tensor) -> Prediction:
    """The prediction of logits (n, K), and its cross-entropy with the labels."""
    m = z.amax(dim=-1, keepdim=True).detach()
    x, least = z - m, torch.finfo(z.dtype).min
    x = x.clamp_(min=least) if may_overwrite() else x.clamp(min=least)
    p = x.softmax(dim=-1)
    if torch.is_grad_enabled():  # functions of x alone, whose derivatives are finite and do not know of m
        log_s = x.logsumexp(dim=-1)
        entropy = log_s - (p * with_finite_slope(x, p)).sum(dim=-1)
    else:
        log_s = -p.amax(dim=-1).log()  # max p = e^0 / Σ e^x
        entropy = log_s - (p * x).sum(dim=-1)
    if label.is_floating_point():
        nll = ((m - z) * label).masked_fill_(label == 0, 0.0).sum(dim=-1)
    else:
        nll = (m - z.gather(-1, label)).squeeze(-1)
    return Prediction(x, p, log_s, nll + log_s, entropy)


def at_label(values: Tensor, label: Tensor) -> Tensor:
    """The ``values`` (n, K) at the labels, (n,): the mean under them where labels are distributions."""
    if label.is_floating_point():
        return (values * label).sum(dim=-1)
    return values.gather(-1, label).squeeze(-1)


def add_at_label(values: Tensor, label: Tensor, mass: Tensor) -> Tensor:
    """``values`` (n, K) with ``mass`` (n,) more at the labels, in their own place where that is possible."""
    if label.is_floating_point():
        return add_product(values, label, mass[:, None])
    return overwritable(values).scatter_add_(-1, label, mass[:, None])


def add_product(tensor: Tensor, one: Tensor, other: Tensor, value: float = 1.0) -> Tensor:
    """tensor + value·one·other, in the place of ``tensor`` where that is possible."""
    if one.size(-1) == other.size(-1) == 1:  # torch is slow where two factors must be repeated
        return overwritable(tensor).add_(one * other, alpha=value)
    if may_overwrite():
        return tensor.addcmul_(one, other, value=value)
    return torch.addcmul(tensor, one, other, value=value)


def overwritable(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy where autograd may still need what it holds."""
    return tensor if may_overwrite() else tensor.clone()


def may_overwrite() -> bool:
    """Whether nobody follows what is computed here: neither autograd nor torch.func."""
    return not (torch.is_grad_enabled() or is_compiling() or _has_transforms())


def with_finite_slope(x: Tensor, p: Tensor) -> Tensor:
    """x as a factor of p, (n, K) both: where p is 0, x is too large for the derivatives that autograd makes of them."""
    return x.masked_fill(p == 0, 0.0) if torch.is_grad_enabled() else x


def check_not_negative(name: str, value: float) -> None:
    """ValueError names the option, its value and its range."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number ≥ 0, got {value}")


def times(weight: float, value: Tensor) -> Tensor:
    """weight·value, where 0·inf is 0: a target of probability 0 costs nothing when its label has no mass."""
    return weight * value if weight else torch.zeros_like(value)


class Kernel(Protocol):
    """What computes a loss, without autograd."""

    @property
    def block(self) -> Block:
        """The loss of all rows at once, for second derivatives."""

    @property
    def fields(self) -> int:
        """How many terms there are."""

    @property
    def rows_together(self) -> int:
        """How many consecutive rows form one term of the loss; chunks never split them."""

    def reduce(self, rows: Rows, grad: Optional[Tensor] = None, scale: Optional[Tensor] = None) -> Tensor:
        """The terms (fields, N).

        Args:
            grad: (N, K), with rows that are contiguous, takes ``scale``·∂loss/∂z where it is given. It may be the
                logits themselves.
            scale: (N,), one where it is not given. It is applied before rounding to the dtype of ``grad``.
        """


class RowKernel(Kernel, Protocol):
    """A kernel that :func:`differentiable_terms` can take."""

    def makes_gradient_early(self, logits: Tensor) -> bool:
        """Whether the forward pass should make the gradient, by :meth:`reduce_early`."""

    def reduce_early(self, rows: Rows) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
        """The terms; the gradient (N, K) times a scale that is likely to be wanted; that scale, (N,), None being 1."""

    def rescale(self, grad: Tensor, scale: Optional[Tensor], wanted: Tensor, ignored: Tensor) -> None:
        """Bring an early gradient from its ``scale`` to the one that is ``wanted``, (N,).

        Half precision rounds it again. Rows that are ``ignored`` stay 0, be it inf that is wanted.
        """

    def reduce_and_save(self, rows: Rows) -> Tuple[Tensor, Tuple[Tensor, ...]]:
        """The terms, and what :meth:`gradient` may use of their computation."""

    def gradient(self, rows: Rows, saved: Tuple[Tensor, ...], scale: Tensor) -> Tensor:
        """``scale``·∂loss/∂z, (N, K), of the dtype of the logits."""


@dataclass(frozen=True)
class BlockKernel:
    """A loss in PyTorch operations, a block of rows at a time.

    Args:
        block: the loss of some rows.
        fields: how many terms ``block`` gives.
    """

    block: Block
    fields: int
    rows_together: ClassVar[int] = 1
    #: expected upstream gradient of every row (nonzero), a number or (); if it matches, backward has no rescaling pass
    usual_scale: Union[float, Tensor] = 1.0

    def reduce(
        self, rows: Rows, grad: Optional[Tensor] = None, scale: Optional[Tensor] = None, adapt: bool = False
    ) -> Tensor:
        """See :class:`Kernel`.

        Args:
            adapt: let ``scale`` change with the rows of ``grad``, see :func:`write_scaled`.
        """
        logits, target, ignored, beside = rows
        terms = torch.empty(self.fields, logits.size(0), dtype=accumulator(logits), device=logits.device)
        for part in row_blocks(logits):
            z = logits[part].to(terms.dtype)
            slices = (tensor[part] for tensor in beside)
            values, slope = self.block(z, _labels(target[part], z), *slices, with_grad=grad is not None)
            terms[:, part] = torch.stack(values)
            if grad is not None and slope is not None:
                write_scaled(grad[part], slope, None if scale is None else scale[part, None], adapt)
        if grad is not None:
            grad.index_fill_(0, ignored.nonzero().squeeze(-1), 0.0)
        return terms.masked_fill_(ignored, 0.0)

    def reduce_and_save(self, rows: Rows) -> Tuple[Tensor, Tuple[Tensor, ...]]:
        """See :class:`RowKernel`; nothing is saved."""
        return self.reduce(rows), ()

    def gradient(self, rows: Rows, saved: Tuple[Tensor, ...], scale: Tensor) -> Tensor:
        """See :class:`RowKernel`."""
        grad = torch.empty(rows.logits.shape, dtype=rows.logits.dtype, device=rows.logits.device)
        self.reduce(rows, grad, scale)
        return grad

    def makes_gradient_early(self, logits: Tensor) -> bool:
        """Instead of computing p twice; but float16 on a GPU waits for its scale, see :func:`write_scaled` for why."""
        return logits.device.type == "cpu" or logits.dtype != torch.float16

    def reduce_early(self, rows: Rows) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
        """See :class:`RowKernel`."""
        logits = rows.logits
        grad = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        # float16 is too narrow for what the scale of the loss will save from 0
        adapt = logits.dtype == torch.float16
        plain = isinstance(self.usual_scale, float) and self.usual_scale == 1 and not adapt
        scale = None
        if not plain:
            scale = torch.ones(len(logits), dtype=accumulator(logits), device=logits.device).mul_(self.usual_scale)
        return self.reduce(rows, grad, scale, adapt), grad, scale

    def rescale(self, grad: Tensor, scale: Optional[Tensor], wanted: Tensor, ignored: Tensor) -> None:
        """See :class:`RowKernel`."""
        factor = (wanted if scale is None else wanted / scale).masked_fill(ignored, 1.0)
        # A summed loss needs no second pass over the gradient. On a GPU the host would have to wait for the answer.
        if grad.device.type == "cpu" and factor.eq(1).all():
            return
        for part in row_blocks(grad):  # as a whole, a product of two dtypes takes torch longer than the loss
            of_part = grad[part]
            product = of_part.to(factor.dtype).mul_(factor[part, None])
            if product.dtype != of_part.dtype:
                of_part.copy_(product)


def write_scaled(out: Tensor, slope: Tensor, scale: Optional[Tensor], adapt: bool = False) -> None:
    """``scale``·``slope`` (…, K) into ``out``, whose dtype may be another; ``slope`` is overwritten.

    Args:
        scale: (…, 1).
        adapt: multiply each row and its ``scale`` by the power of two that brings the row's largest number near the top
            of the range of ``out``: rounding then takes no more from a small number than a later scale would.
    """
    if scale is not None:
        slope = slope.mul_(scale)
        if adapt:
            # a tenth of the time of the norm of infinite order
            largest = torch.maximum(slope.amax(dim=-1, keepdim=True), -slope.amin(dim=-1, keepdim=True))
            top = int(math.log2(torch.finfo(out.dtype).max))
            # within the range of float32, in which a row of zeros or of inf needs some factor too
            factor = torch.ldexp(torch.ones_like(largest), (top - largest.frexp()[1]).clamp_(-100, 100))
            slope = slope.mul_(factor)
            scale.mul_(factor)
    # as one operation torch takes longer than for the product and the change of dtype
    out.copy_(slope)


def rows_and_mask(logits: Tensor, target: Tensor, ignore_index: Optional[int]) -> Tuple[Tensor, Tensor]:
    """The targets with 0 where they are to be ignored, and the mask of these, both (N,).

    Raises:
        ValueError: not logits (N, K) and target (N,), fewer than two classes, or a target of no integers.
    """
    if logits.dim() != 2 or target.shape != logits.shape[:1]:
        shapes = f"{tuple(logits.shape)} and {tuple(target.shape)}"
        raise ValueError(f"logits and target must be (N, K) and (N,), got {shapes}")
    check_classes(logits.size(1))
    return targets_and_mask(target, ignore_index)


def check_classes(k: int) -> None:
    """ValueError where there is nothing to choose from."""
    if k < 2:
        raise ValueError(f"the number of classes must be ≥ 2, got {k}")


def targets_and_mask(target: Tensor, ignore_index: Optional[int]) -> Tuple[Tensor, Tensor]:
    """The targets, int64, with 0 where they are to be ignored, and the mask of these; None ignores nothing.

    Raises:
        ValueError: they are no integers.
    """
    if target.is_floating_point():
        raise ValueError(f"target must be class indices, got {target.dtype}")
    target = target.long()  # before they are compared: -100 is 156 to uint8
    if ignore_index is None:
        return target, torch.zeros_like(target, dtype=torch.bool)
    ignored = target.eq(ignore_index)
    return target.masked_fill(ignored, 0), ignored


def token_terms(
    block: Block, logits: Tensor, target: Tensor, ignore_index: Optional[int], beside: Tuple[Tensor, ...] = ()
) -> TokenTerms:
    """The terms of a ``block`` that gives the fields of :class:`TokenTerms`, the loss differentiable.

    For ``beside`` see :class:`Rows`, for the errors :func:`rows_and_mask`.
    """
    rows = Rows(logits, *rows_and_mask(logits, target, ignore_index), beside)
    return TokenTerms(*differentiable_terms(BlockKernel(block, len(TokenTerms._fields)), rows))


def differentiable_terms(kernel: RowKernel, rows: Rows) -> Tuple[Tensor, ...]:
    """The terms of a ``kernel``; the first is differentiable in the logits, as often as is wanted."""
    logits = rows.logits
    followed = torch.is_grad_enabled() and logits.requires_grad
    if is_compiling():
        return _WholeLoss.apply(kernel.block, *rows.tensors) if followed else whole_terms(kernel.block, rows)
    if is_transformed(logits):
        if not hasattr(torch, "func"):
            raise RuntimeError("forward-mode derivatives of this loss need torch 2.0 or newer")
        return _TransformedLoss.apply(kernel.block, *rows.tensors)
    early = followed and kernel.makes_gradient_early(logits)
    return _RowLoss.apply(kernel, early, *rows.tensors)


def is_compiling() -> bool:
    """Whether ``torch.compile`` is reading this."""
    compiler = getattr(torch, "compiler", None)
    return hasattr(compiler, "is_compiling") and torch.compiler.is_compiling()


def is_transformed(tensor: Tensor) -> bool:
    """Whether ``torch.func`` or forward-mode differentiation follows what is done with the tensor."""
    return _has_transforms() or forward_ad.unpack_dual(tensor).tangent is not None


def _has_transforms() -> bool:
    functorch = getattr(torch._C, "_are_functorch_transforms_active", None)
    return functorch is not None and functorch()


def takes_whole_gradient(grad_loss: Tensor) -> bool:
    """Whether a backward pass from ``grad_loss`` needs :func:`whole_gradient`.

    It does where autograd records it, to differentiate its result in turn, and where ``grad_loss`` stands for several
    gradients (``is_grads_batched``), of which nothing can be asked at once.
    """
    functorch = getattr(torch._C, "_functorch", None)
    return torch.is_grad_enabled() or (
        functorch is not None
        and (functorch.is_batchedtensor(grad_loss) or functorch.is_legacy_batchedtensor(grad_loss))
    )


class _RowLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kernel, early, *tensors):
        rows, ctx.grad, saved = Rows.of(*tensors), None, ()
        if early:
            # It never takes the place of the logits: nothing tells who else will read them (an argmax, a second loss
            # or backward pass).
            terms, ctx.grad, ctx.scale = kernel.reduce_early(rows)
        else:
            terms, saved = kernel.reduce_and_save(rows)
        ctx.kernel, ctx.ignored, ctx.inputs = kernel, rows.ignored, len(tensors)
        ctx.save_for_backward(*tensors, *saved)
        return loss_and_constants(ctx, terms)

    @staticmethod
    def backward(ctx, grad_loss, *_):
        if grad_loss is None:
            return (None,) * len(ctx.needs_input_grad)
        # Given away, for whoever gets it may write to it, be it through a view: a second use computes it again.
        grad, ctx.grad = ctx.grad, None
        whole = takes_whole_gradient(grad_loss)
        if whole or grad is None:
            tensors = ctx.saved_tensors
            rows, saved = Rows.of(*tensors[: ctx.inputs]), tensors[ctx.inputs :]
            if whole:
                grad = whole_gradient(ctx.kernel.block, rows, grad_loss)
            else:
                grad = ctx.kernel.gradient(rows, saved, grad_loss)
        else:
            ctx.kernel.rescale(grad, ctx.scale, grad_loss, ctx.ignored)
        return (None, None, grad, *(None,) * (ctx.inputs - 1))


class _WholeLoss(torch.autograd.Function):
    """All rows at once, in operations that can be traced: for ``torch.compile``."""

    @staticmethod
    def forward(block, *tensors):
        return whole_terms(block, Rows.of(*tensors))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.block, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx, grad_loss, *_):
        tensors = ctx.saved_tensors
        return (None, whole_gradient(ctx.block, Rows.of(*tensors), grad_loss), *(None,) * (len(tensors) - 1))


class _TransformedLoss(_WholeLoss):
    """The same for ``torch.func`` and forward-mode differentiation, which ``torch.compile`` would refuse."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx, inputs, output):
        _WholeLoss.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[1:])
        ctx.constants = len(output) - 1

    @staticmethod
    def jvp(ctx, _, tangent, *__):
        rows = Rows.of(*ctx.saved_tensors)
        one = torch.ones_like(rows.ignored, dtype=accumulator(rows.logits))
        grad = whole_gradient(ctx.block, rows, one, rounded=False)
        return ((grad * tangent).sum(dim=-1), *(None,) * ctx.constants)


def whole_terms(block: Block, rows: Rows) -> Tuple[Tensor, ...]:
    """The terms, (N,) each, of all rows at once."""
    values, _ = _whole(block, rows, with_grad=False)
    return tuple(value.masked_fill(rows.ignored, 0.0) for value in values)


def whole_gradient(block: Block, rows: Rows, scale: Tensor, rounded: bool = True) -> Tensor:
    """``scale``·∂loss/∂z, (N, K), of all rows at once, itself differentiable in the logits and in ``scale``.

    It has the dtype of the logits, or, where not ``rounded``, that of the sums.
    """
    _, slope = _whole(block, rows, with_grad=True)
    assert slope is not None
    grad = slope.masked_fill(rows.ignored[:, None], 0.0) * scale.masked_fill(rows.ignored, 0.0)[:, None]
    return grad.to(rows.logits.dtype) if rounded else grad


def _whole(block: Block, rows: Rows, with_grad: bool) -> Tuple[List[Tensor], Optional[Tensor]]:
    # what is ignored may be NaN, which no factor of 0 takes out of a derivative
    z = rows.logits.masked_fill(rows.ignored[:, None], 0.0).to(accumulator(rows.logits))
    return block(z, _labels(rows.target, z), *rows.beside, with_grad=with_grad)


def _labels(target: Tensor, z: Tensor) -> Tensor:
    return target.to(z.dtype) if target.is_floating_point() else target[:, None]


def loss_and_constants(ctx: Any, terms: Tensor) -> Tuple[Tensor, ...]:
    """What the forward pass of an autograd function returns of its terms (F, N): only the first has a gradient."""
    loss, *constants = terms.unbind()
    ctx.mark_non_differentiable(*constants)
    ctx.set_materialize_grads(False)  # else autograd makes zeros of the gradients that these do not have
    return (loss, *constants)


def accumulator(logits: Tensor) -> torch.dtype:
    """The dtype of sums over these logits."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def row_blocks(logits: Tensor) -> Iterator[slice]:
    """Slices of the rows of logits (N, K) that stay in cache."""
    n, k = logits.shape
    on_cpu = logits.device.type == "cpu"
    if on_cpu:
        _keep_pages()
    elements = _BLOCK_ELEMENTS_PER_THREAD * torch.get_num_threads() if on_cpu else _BLOCK_ELEMENTS_ELSEWHERE
    size = max(1, elements // k)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


@lru_cache(maxsize=None)
def _keep_pages() -> None:
    # glibc takes memory of a size that was freed once, up to 32 MiB, from its own pages from then on. Else it would get
    # fresh ones from the system for each temporary of a block, which takes as long as computing on them.
    torch.empty(30 << 20, dtype=torch.uint8)

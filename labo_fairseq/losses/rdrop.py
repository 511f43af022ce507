"""R-Drop (Wu et al., 2021): two passes with dropout predict p and q for a token, and are drawn together.

    R         = ½·(L(p) + L(q)) + α/2·D,      D = ½·(KL(p‖q) + KL(q‖p))
    ∂D/∂z_p   = ½·p∘[(log p − log q) − KL(p‖q)] + ½·(p − q),      and ∂D/∂z_q with p and q exchanged

L is any loss of one prediction. The paper's objective, that of its code and of fairseq's criterion
``label_smoothed_cross_entropy_with_rdrop`` is 2·R with the same α, for these add up the two losses of a token. Here
their mean counts, so that α = 0 and two equal passes give L itself, and learning rate and clipping keep their meaning.

Rows are those of a doubled batch: all tokens of the first pass, then those of the second.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, List, Optional, Tuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import linear

from .blockwise import (
    BlockKernel,
    Kernel,
    Rows,
    accumulator,
    check_classes,
    check_not_negative,
    differentiable_terms,
    is_compiling,
    is_transformed,
    may_overwrite,
    row_blocks,
    targets_and_mask,
    write_scaled,
)
from .fused_linear import as_multiplied, linear_terms
from .labo import LaboTerms, Objective, labo_kernel, labo_terms_with

Terms = TypeVar("Terms", bound=Any)  # a named tuple, the loss among its fields


def rdrop_divergence(logits: Tensor, target: Tensor, ignore_index: Optional[int] = -100) -> Tensor:
    """D of every token: the symmetric divergence of its two predictions.

    Args:
        logits: (2N, K), float16, bfloat16, float32 or float64, the first pass and then the second. ``-inf`` masks a
            class; D is infinite where only one of the passes masks one. Sums are taken in float32 (float64 for
            float64), and so is the result.
        target: (N,), int64; only the place of ``ignore_index`` matters.
        ignore_index: tokens with this target have no divergence and no gradient; None ignores nothing.

    Returns:
        (N,), in nats, differentiable in the logits as often as is wanted.

    Raises:
        ValueError: shapes that do not fit, or fewer than two classes.
    """
    return _divergence_of(logits, target, ignore_index, weight=1.0)


def _divergence_of(logits: Tensor, target: Tensor, ignore_index: Optional[int], weight: float) -> Tensor:
    """:func:`rdrop_divergence` that most often has this weight in a sum of losses."""
    if logits.dim() != 2 or target.dim() != 1 or logits.size(0) != 2 * target.size(0):
        raise ValueError(
            f"logits and target must be (2N, K) and (N,), got {tuple(logits.shape)} and {tuple(target.shape)}"
        )
    check_classes(logits.size(1))
    rows = Rows.of(logits, *(tensor.repeat(2) for tensor in targets_and_mask(target, ignore_index)))
    (divergence,) = differentiable_terms(replace(_PAIRS_APART, usual_scale=weight / 2 or 1.0), rows)
    return divergence.view(2, -1).mean(dim=0)


def rdrop_terms(
    terms: Terms, logits: Tensor, target: Tensor, alpha: float, ignore_index: Optional[int] = -100
) -> Tuple[Terms, Tensor]:
    """R of every token, with the means of the other terms over its two passes; and D, both (N,).

    Args:
        terms: of the loss L of every row, (2N,) each, such as :class:`.blockwise.TokenTerms`.
        logits: (2N, K), see :func:`rdrop_divergence`, which also names the errors.
        target: (N,).
        alpha: the weight α ≥ 0 of the divergence.
    """
    check_not_negative("alpha", alpha)
    divergence = _divergence_of(logits, target, ignore_index, weight=alpha / 2)
    mean = terms._make(term.view(2, -1).mean(dim=0) for term in terms)
    return mean._replace(loss=mean.loss + alpha / 2 * divergence), divergence.detach()


def linear_rdrop_terms(
    options: Objective,
    alpha: float,
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    ignore_index: Optional[int] = -100,
    bias: Optional[Tensor] = None,
) -> Tuple[LaboTerms, Tensor]:
    """:func:`rdrop_terms` of LABO on the logits ``hidden @ weight.T + bias``, which are never whole in memory.

    Args:
        options: of L; label smoothing is a case of LABO.
        alpha: the weight α ≥ 0 of the divergence.
        hidden: (2N, D), the first pass and then the second.
        weight, bias: (K, D) and (K,).
        target: (N,).

    Raises:
        ValueError: α out of range, shapes that do not fit, or fewer than two classes.
    """
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.size(1) != weight.size(1) or len(hidden) != 2 * len(target):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (hidden, weight, target))
        raise ValueError(f"hidden, weight and target must be (2N, D), (K, D) and (N,), got {shapes}")
    check_classes(weight.size(0))
    check_not_negative("alpha", alpha)
    if is_compiling() or any(is_transformed(tensor) for tensor in (hidden, weight, bias) if tensor is not None):
        logits = linear(hidden, weight, bias)
        return rdrop_terms(
            labo_terms_with(options, logits, target.repeat(2), ignore_index), logits, target, alpha, ignore_index
        )
    hidden, weight, bias = as_multiplied(hidden, weight, bias)
    # the two of a token in a chunk
    rows = hidden.reshape(2, len(target), hidden.size(1)).transpose(0, 1).reshape(hidden.shape)
    rows_target, ignored = (tensor.repeat_interleave(2) for tensor in targets_and_mask(target, ignore_index))
    kernel = _RDropKernel(labo_kernel(options, rows), alpha)
    *terms, divergence = (
        term.view(-1, 2).mean(dim=-1) for term in linear_terms(kernel, rows, weight, bias, rows_target, ignored)
    )
    return LaboTerms(*terms), divergence


@dataclass(frozen=True)
class _PairKernel(BlockKernel):
    """Blocks of tokens, which are two rows each. D is the mean of what the two have, which must have the same scale.

    Args:
        adjacent: whether the two rows of a token follow each other; otherwise all first rows come first.
    """

    adjacent: bool = False

    def reduce(
        self, rows: Rows, grad: Optional[Tensor] = None, scale: Optional[Tensor] = None, adapt: bool = False
    ) -> Tensor:
        logits = rows.logits
        terms = torch.empty(1, logits.size(0), dtype=accumulator(logits), device=logits.device)
        pairs, means = _pairs(logits, self.adjacent), _pairs(terms[0], self.adjacent)
        slopes = None if grad is None else _pairs(grad, self.adjacent)
        scales = None if scale is None else _pairs(scale, self.adjacent)[:, :, None]
        for part in row_blocks(logits):
            tokens = slice((part.start + 1) // 2, (part.stop + 1) // 2)
            means[:, tokens], slope = _divergence(pairs[:, tokens].to(terms.dtype), with_grad=grad is not None)
            if slopes is not None and slope is not None:
                write_scaled(slopes[:, tokens], slope, None if scales is None else scales[:, tokens], adapt)
        if grad is not None:
            grad.index_fill_(0, rows.ignored.nonzero().squeeze(-1), 0.0)
        return terms.masked_fill_(rows.ignored, 0.0)


@dataclass(frozen=True)
class _RDropKernel:
    """R for each of the two rows of a token, which follow each other, the terms of L, and D."""

    base: Kernel  # of L
    alpha: float
    rows_together: ClassVar[int] = 2

    @property
    def fields(self) -> int:
        return self.base.fields + 1

    def reduce(self, rows: Rows, grad: Optional[Tensor] = None, scale: Optional[Tensor] = None) -> Tensor:
        """See :class:`.blockwise.Kernel`."""
        slope = None if grad is None else torch.empty_like(rows.logits)
        divergence = _PAIRS_ADJACENT.reduce(rows, slope, scale)
        terms = self.base.reduce(rows, grad, scale)  # may overwrite the logits
        if grad is not None and slope is not None:
            grad.add_(slope, alpha=self.alpha / 2)
        terms[0].add_(divergence[0], alpha=self.alpha / 2)
        return torch.cat((terms, divergence))

    def block(
        self, z: Tensor, label: Tensor, *beside: Tensor, with_grad: bool
    ) -> Tuple[List[Tensor], Optional[Tensor]]:
        """All rows at once, for second derivatives."""
        (divergence,), pair_slope = _PAIRS_ADJACENT.block(z, label, with_grad=with_grad)
        (loss, *others), slope = self.base.block(z, label, *beside, with_grad=with_grad)
        terms = [loss + self.alpha / 2 * divergence, *others, divergence]
        return terms, slope if slope is None or pair_slope is None else slope + self.alpha / 2 * pair_slope


def _block(z: Tensor, label: Tensor, *_: Any, adjacent: bool, with_grad: bool) -> Tuple[List[Tensor], Optional[Tensor]]:
    """D for each of the rows (2n, K), and ∂(D + D)/∂z."""
    divergence, slope = _divergence(_pairs(z, adjacent), with_grad)
    of_rows = divergence.expand(2, -1)
    if adjacent:
        of_rows, slope = of_rows.t(), None if slope is None else slope.transpose(0, 1)
    return [of_rows.flatten()], None if slope is None else slope.flatten(0, 1)


_PAIRS_APART = _PairKernel(partial(_block, adjacent=False), 1)
_PAIRS_ADJACENT = _PairKernel(partial(_block, adjacent=True), 1, adjacent=True)


def _pairs(rows: Tensor, adjacent: bool) -> Tensor:
    """A view (2, n, …) of rows (2n, …)."""
    n = rows.size(0) // 2
    return rows.view(n, 2, *rows.shape[1:]).transpose(0, 1) if adjacent else rows.view(2, n, *rows.shape[1:])


def _divergence(z: Tensor, with_grad: bool) -> Tuple[Tensor, Optional[Tensor]]:
    """D (n,) of two predictions by their logits (2, n, K), and 2·∂D/∂z, (2, n, K)."""
    in_place = may_overwrite()
    p = z.softmax(dim=-1)
    top = z.amax(dim=-1).detach()
    lse = top - p.amax(dim=-1).log() if in_place else z.logsumexp(dim=-1)
    shift = (lse[0] - lse[1])[:, None]
    ratio = z[0] - z[1]  # to be log p − log q
    ratio = ratio.sub_(shift) if in_place else ratio - shift
    masked_once = None
    # on a GPU it would have to wait for the answer
    if not in_place or z.is_cuda or not ratio.sum().isfinite():
        # what a pass masks has no share, or an infinite one
        masked_once = (ratio.isinf() & (p[0] != p[1])).any(dim=-1)
        large = torch.finfo(z.dtype).max / 4
        ratio = ratio.nan_to_num(0.0, large, -large)
    sign = z.new_tensor([1.0, -1.0])[:, None]  # for q it is log q − log p
    products = p * ratio
    kl = products.sum(dim=-1) * sign
    divergence = kl.sum(dim=0) / 2
    if masked_once is not None:
        divergence = divergence.masked_fill(masked_once, math.inf)
    if not with_grad:
        return divergence, None
    if in_place:
        products.addcmul_(p, (sign * (1 - kl))[:, :, None])
        products[0].sub_(p[1])
        products[1].add_(p[0]).neg_()
        return divergence, products
    return divergence, products * sign[:, :, None] + p * (1 - kl)[:, :, None] - p.flip(0)

"""R-Drop (Wu et al., 2021): two passes with dropout predict p and q for a token, and are drawn together.

    R         = ½·(L(p) + L(q)) + α/2·D,      D = ½·(KL(p‖q) + KL(q‖p))
    ∂D/∂z_p   = ½·p∘[(log p − log q) − KL(p‖q)] + ½·(p − q),      and ∂D/∂z_q with p and q exchanged

L is any loss of one prediction. The paper's objective, that of its code and of fairseq's criterion
``label_smoothed_cross_entropy_with_rdrop`` is 2·R with the same α, for these add up the two losses of a token. Here
their mean counts, so that α = 0 and two equal passes give L itself, and learning rate and clipping keep their meaning.

This module has D. Its rows are those of a doubled batch: all tokens of the first pass, then those of the second.
"""

import math
from dataclasses import dataclass
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor

from .blockwise import BlockKernel, check_classes, differentiable_terms, may_overwrite, row_blocks, targets_and_mask


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
    if logits.dim() != 2 or target.dim() != 1 or logits.size(0) != 2 * target.size(0):
        raise ValueError(
            f"logits (2N, K) and target (N,) are needed, not {tuple(logits.shape)} and {tuple(target.shape)}"
        )
    check_classes(logits.size(1))
    target, ignored = (tensor.repeat(2) for tensor in targets_and_mask(target, ignore_index))
    (shares,) = differentiable_terms(_PairKernel(_block, 1), logits, target, ignored)
    return shares.view(2, -1).sum(dim=0)


@dataclass(frozen=True)
class _PairKernel(BlockKernel):
    """Blocks of tokens, which are two rows each. Both have half of the divergence, and must have the same scale."""

    def reduce(
        self,
        logits: Tensor,
        target: Tensor,
        ignored: Tensor,
        beside: Tuple[Tensor, ...] = (),
        grad: Optional[Tensor] = None,
        scale: Optional[Tensor] = None,
    ) -> Tensor:
        n, k = logits.size(0) // 2, logits.size(1)
        terms = torch.empty(1, 2 * n, dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)
        pairs, shares = logits.view(2, n, k), terms.view(2, n)
        slopes = None if grad is None else grad.view(2, n, k)
        for rows in row_blocks(logits):
            tokens = slice((rows.start + 1) // 2, (rows.stop + 1) // 2)
            divergence, slope = pair_divergence(pairs[:, tokens].to(terms.dtype), with_grad=grad is not None)
            shares[:, tokens] = divergence / 2
            if slopes is not None and slope is not None:
                torch.mul(slope, 1.0 if scale is None else scale[:n][tokens, None], out=slopes[:, tokens])
        if grad is not None:
            grad.index_fill_(0, ignored.nonzero().squeeze(-1), 0.0)
        return terms.masked_fill_(ignored, 0.0)


def _block(z: Tensor, label: Tensor, *_: Any, with_grad: bool) -> Tuple[List[Tensor], Optional[Tensor]]:
    """Half of D for each of the rows (2n, K), and ∂D/∂z."""
    divergence, slope = pair_divergence(z.view(2, -1, z.size(-1)), with_grad)
    return [(divergence / 2).repeat(2)], None if slope is None else slope.flatten(0, 1)


def pair_divergence(z: Tensor, with_grad: bool) -> Tuple[Tensor, Optional[Tensor]]:
    """D (n,) of two predictions by their logits (2, n, K), and ∂D/∂z, (2, n, K)."""
    in_place = may_overwrite()
    p = z.softmax(dim=-1)
    # log p − log q; what a pass masks has no share, or an infinite one
    top = z.amax(dim=-1).detach()
    lse = top - p.amax(dim=-1).log() if in_place else z.logsumexp(dim=-1)
    ratio = z[0] - z[1]
    ratio = ratio.sub_((lse[0] - lse[1])[:, None]) if in_place else ratio - (lse[0] - lse[1])[:, None]
    masked_once = (ratio.isinf() & (p[0] != p[1])).any(dim=-1)
    large = torch.finfo(z.dtype).max / 4
    ratio = ratio.nan_to_num_(0.0, large, -large) if in_place else ratio.nan_to_num(0.0, large, -large)
    signed = torch.stack((ratio, -ratio))
    kl = (p * signed).sum(dim=-1)
    divergence = (kl.sum(dim=0) / 2).masked_fill(masked_once, math.inf)
    if not with_grad:
        return divergence, None
    if in_place:
        return divergence, signed.add_(1 - kl[:, :, None]).mul_(p).sub_(p.flip(0)).mul_(0.5)
    return divergence, (p * (signed + 1 - kl[:, :, None]) - p.flip(0)) / 2

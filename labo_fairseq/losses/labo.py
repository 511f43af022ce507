"""The LABO objective in closed form.

Notation (Lu et al., 2023): logits ``z`` of one target token, ``p = softmax(z)``, ground truth ``k``,
vocabulary size ``K``, smoothing mass ``α``, temperature ``τ = β/α`` and ``P* = softmax(z/τ)`` (Eq. 15).
Put ``β = ατ`` and ``P*`` into Eq. 14, and every sum over the vocabulary but two disappears:

    R      = (1−α)·(lse(z) − z_k) + α·(lse(z) − τ·lse(z/τ) + τ·log K)
    ∂R/∂z  = p − (1−α)·onehot(k) − α·P*
    α      = 1 − ρ·H(p)/log K                                          (Eq. 16, constant for the gradient)

The gradient is the same whether ``P*`` is held constant or not, because ``P*`` minimizes ``R`` (Eq. 17).
"""

import importlib.util
import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import List, NamedTuple, Optional, Tuple, Union

import torch
from torch import Tensor

from .blockwise import (
    BlockKernel,
    RowKernel,
    Rows,
    add_at_label,
    add_product,
    at_label,
    check_classes,
    check_not_negative,
    differentiable_terms,
    may_overwrite,
    overwritable,
    predict,
    rows_and_mask,
)
from .posterior import Odds, check_labels_had_part, entropy_of, log_posterior_rows


def _block(
    z: Tensor, label: Tensor, support: Optional[Tensor] = None, *, options: "Objective", with_grad: bool
) -> Tuple[List[Tensor], Optional[Tensor]]:
    """The formula: the fields of :class:`LaboTerms` and ∂R/∂z of logits (n, K)."""
    x, p, log_s, nll, entropy = predict(z, label)  # x = z − max z, log_s = lse(x)
    p_star, annealed = _anneal(x, options.tau, support)  # P*, τ·lse(x/τ) − τ·log K
    alpha = options.mass(entropy, z.size(-1))
    loss = torch.where(alpha == 1, torch.zeros_like(nll), (1 - alpha) * nll) + alpha * (log_s - annealed)
    p_star_k = at_label(p_star.expand_as(x), label)
    if options.z_loss:
        loss, p = _add_z_loss(options.z_loss, z, log_s, loss, p)
    grad = add_product(add_at_label(p, label, alpha - 1), p_star, -alpha[:, None]) if with_grad else None
    return [loss, nll, alpha, entropy, p_star_k], grad


# What follows is plumbing: the options, the parts of the formula, and where it is computed.

ADAPTIVE = "adaptive"

# Above this τ, τ·log(mean e^(x/τ)) is taken as τ·log1p(mean(e^(x/τ) − 1)), which keeps its digits in float32.
LARGE_TAU = 10.0


class LaboTerms(NamedTuple):
    """Per-token results of :func:`labo_terms`, each of shape (N,), 0 where the target is ignored."""

    loss: Tensor  # R of Eq. 14, in nats; the only differentiable one
    nll: Tensor  # −log p_k, in nats
    alpha: Tensor  # smoothing mass α
    entropy: Tensor  # H(p), in nats
    p_star: Tensor  # P*_k, what the smoothing distribution gives the ground truth


@dataclass(frozen=True)
class Objective:
    """What R is made of: the options of LABO, or what they become in a case of it. Nothing is checked here."""

    tau: float
    alpha: Union[str, float]
    rho: float = 0.5
    z_loss: float = 0.0

    @property
    def fixed_alpha(self) -> Optional[float]:
        """α as a number, or None where it is adaptive."""
        return None if isinstance(self.alpha, str) else self.alpha

    def mass(self, entropy: Tensor, k: int) -> Tensor:
        """α of tokens whose prediction has the entropy (n,), in a vocabulary of size ``k``."""
        fixed = self.fixed_alpha
        return 1 - self.rho * entropy / math.log(k) if fixed is None else torch.full_like(entropy, fixed)


def uniform_smoothing(epsilon: float, z_loss: float = 0.0) -> Objective:
    """Label smoothing as a case of LABO (Remark 3): ``P*`` is uniform, which is τ = ∞, and α is the mass ε.

    Smoothing that spares the target class has the mass ε·K/(K − 1), which may be above 1.
    """
    return Objective(math.inf, epsilon, z_loss=z_loss)


@dataclass(frozen=True)
class LaboOptions(Objective):
    """The options of LABO, checked once.

    Args:
        tau: temperature τ = β/α > 0 of the smoothing distribution ``P* = softmax(z/τ)``.
        alpha: smoothing mass α in [0, 1], or ``"adaptive"`` for Eq. 16.
        rho: ρ in [0.5, 1] of Eq. 16; ignored where α is fixed.
        z_loss: weight of lse(z)², which keeps the logits of a long training near 0; not in the paper, so 0.

    Raises:
        ValueError: an option is out of range; the message names it, its value and its range.
    """

    tau: float = 1.25
    alpha: Union[str, float] = ADAPTIVE

    def __post_init__(self) -> None:
        if not (0 < self.tau < math.inf):
            raise ValueError(f"tau must be a finite number > 0, got {self.tau}")
        if not 0.5 <= self.rho <= 1:
            raise ValueError(f"rho must be in [0.5, 1], got {self.rho}")
        check_not_negative("z_loss", self.z_loss)
        if self.alpha == ADAPTIVE:
            return
        try:
            alpha = float(self.alpha)
        except (TypeError, ValueError):
            alpha = math.nan
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be 'adaptive' or a number in [0, 1], got {self.alpha}")
        object.__setattr__(self, "alpha", alpha)


def labo_terms(
    logits: Tensor,
    target: Tensor,
    tau: float = 1.25,
    alpha: Union[str, float] = ADAPTIVE,
    rho: float = 0.5,
    ignore_index: Optional[int] = -100,
) -> LaboTerms:
    """LABO's objective for every token (Eq. 14), with the quantities worth watching.

    Args:
        logits: (N, K), float16, bfloat16, float32 or float64. ``-inf`` masks a class. Sums are taken in
            float32 (float64 for float64), and so are the results.
        target: (N,), int64, class indices or ``ignore_index``; or (N, K), floating point, distributions over the
            classes, treated as constants; ``nll`` and ``p_star`` are then averages under this distribution.
        tau, alpha, rho: see :class:`LaboOptions`.
        ignore_index: targets of this value have no loss and no gradient; None ignores nothing.

    Returns:
        :class:`LaboTerms`; only ``loss`` is differentiable. Its second derivative is the derivative of the gradient
        that it returns, ``p − (1−α)·onehot(k) − α·P*``, in which α and ``P*`` depend on the logits.

    Raises:
        ValueError: an option out of range, shapes that do not fit, or fewer than two classes.
    """
    return labo_terms_with(LaboOptions(tau, alpha, rho), logits, target, ignore_index)


def labo_terms_with(
    options: Objective,
    logits: Tensor,
    target: Tensor,
    ignore_index: Optional[int] = -100,
    support: Optional[Tensor] = None,
    usual_scale: Optional[Tensor] = None,
) -> LaboTerms:
    """:func:`labo_terms` of options that are checked already.

    Args:
        support: (K,) or (N, K), bool, the classes that smoothing may give mass to. ``P*`` is 0 on all others, and
            K in τ·log K is their number (masked label smoothing, Chen et al., 2022). None stands for all classes.
        usual_scale: (), nonzero, what the losses will be multiplied by, such as 1/N for their mean: with it the
            gradient that the forward pass makes is most often the one that is asked for. None stands for 1.
    """
    if target.is_floating_point():
        if logits.dim() != 2 or target.shape != logits.shape:
            shapes = f"{tuple(logits.shape)} and {tuple(target.shape)}"
            raise ValueError(f"logits and soft targets must both be (N, K), got {shapes}")
        check_classes(logits.size(1))
        if target.requires_grad:
            raise ValueError("soft targets must be constants, got some that require a gradient: detach() them")
        ignored = torch.zeros(len(target), dtype=torch.bool, device=target.device)
    else:
        target, ignored = rows_and_mask(logits, target, ignore_index)
    plain = support is not None or target.is_floating_point()
    kernel = labo_kernel(options, logits, plain, usual_scale)
    beside = () if support is None else (support.expand(logits.shape),)
    return LaboTerms(*differentiable_terms(kernel, Rows(logits, target, ignored, beside)))


def labo_log_posterior(
    logits: Tensor, tau: float = 1.25, alpha: Union[str, float] = ADAPTIVE, rho: float = 0.5
) -> Tensor:
    """log y of the distribution y = (p − α·P*)/(1−α) that a model trained with LABO predicts as p.

    At its minimum the mean of the objective over y has the gradient p − (1−α)·y − α·P* = 0; α (Eq. 16) and P* are
    those of p. For τ ≥ 1 the order of the classes is that of p. Below 1 the objective may have several minima,
    and y is the distribution for which p is one of them.

    Args:
        logits: (…, K), see :func:`labo_terms`; those of −inf stay −inf.
        tau, alpha, rho: those of the training, see :class:`LaboOptions`.

    Returns:
        (…, K), float32, or float64 for float64; see :mod:`.posterior` for its floor.

    Raises:
        ValueError: an option out of range, α = 1, which leaves nothing of the labels, or fewer than two classes.
    """
    return labo_log_posterior_with(LaboOptions(tau, alpha, rho), logits)


def labo_log_posterior_with(options: Objective, logits: Tensor, support: Optional[Tensor] = None) -> Tensor:
    """:func:`labo_log_posterior` of options that are checked already; ``support`` is that of the training."""
    if options.fixed_alpha is not None:
        check_labels_had_part(options.fixed_alpha)
    beside = () if support is None else (support.expand(logits.shape),)
    return log_posterior_rows(partial(_odds, options=options), logits, *beside)


def labo_kernel(
    options: Objective, logits: Tensor, plain: bool = False, usual_scale: Optional[Tensor] = None
) -> RowKernel:
    """What computes the objective of logits on this device and of this dtype.

    Triton kernels on a GPU that has them, unless for float64 or where PyTorch is to do it (``plain``), as for targets
    that are no indices; a :class:`~labo_fairseq.losses.blockwise.BlockKernel` for everything else.
    """
    scale = 1.0 if usual_scale is None else usual_scale
    kernel = BlockKernel(partial(_block, options=options), len(LaboTerms._fields), scale)
    if plain or logits.dtype == torch.float64 or not logits.is_cuda or not _has_triton():
        return kernel
    from .triton_kernels import TritonKernel

    return TritonKernel(options, kernel.block, usual_scale)


@lru_cache(maxsize=None)
def _has_triton() -> bool:
    # looking for it takes as long as a quarter of what the host does for a loss
    return importlib.util.find_spec("triton") is not None


def _odds(odds: Odds, support: Optional[Tensor] = None, *, options: Objective) -> Tensor:
    """s·(p − α·P*), (n, K)."""
    fixed = options.fixed_alpha
    alpha = options.mass(entropy_of(odds), odds.x.size(-1)) if fixed is None else torch.full_like(odds.s, fixed)
    # One factor for all classes: rounding may not put any other above the first.
    if options.tau == math.inf and support is None:
        return odds.e - alpha * odds.s / odds.x.size(-1)
    annealed = overwritable(odds.x).mul_(1 / options.tau)
    annealed = annealed.exp_() if may_overwrite() else annealed.exp()
    annealed = annealed if support is None else annealed * support
    return torch.addcmul(odds.e, annealed, -alpha * odds.s / annealed.sum(dim=-1, keepdim=True))


def _anneal(x: Tensor, tau: float, support: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
    """P* of logits (n, K) whose maximum is 0, (n, K) or (n, 1), and τ·(lse(x/τ) − log K), (n,). Overwrites ``x``."""
    if support is not None:
        return _anneal_within(x, tau, support)
    k = x.size(-1)
    if tau == math.inf:
        return torch.full_like(x[:, :1], 1 / k), x.mean(dim=-1)
    x = overwritable(x).mul_(1 / tau)
    p_star = x.softmax(dim=-1)
    log_mean = -p_star.amax(dim=-1).log() - math.log(k)
    if tau > LARGE_TAU:
        mean = x.expm1_().mean(dim=-1)
        log_mean = torch.where(mean > -0.5, mean.log1p(), log_mean)
    return p_star, tau * log_mean


def _anneal_within(x: Tensor, tau: float, support: Tensor) -> Tuple[Tensor, Tensor]:
    """The same over the classes of ``support`` (n, K) alone, whose number takes the place of K."""
    size = support.sum(dim=-1).to(x.dtype)
    if tau == math.inf:
        return support / size[:, None], (x * support).sum(dim=-1) / size
    x = x.masked_fill(~support, -math.inf)
    top = x.amax(dim=-1, keepdim=True)
    x = (x - top) * (1 / tau)
    p_star = x.softmax(dim=-1)
    log_mean = -p_star.amax(dim=-1).log() - size.log()
    if tau > LARGE_TAU:
        mean = x.expm1().masked_fill(~support, 0.0).sum(dim=-1) / size
        log_mean = torch.where(mean > -0.5, mean.log1p(), log_mean)
    return p_star, top.squeeze(-1) + tau * log_mean


def _add_z_loss(weight: float, z: Tensor, log_s: Tensor, loss: Tensor, p: Tensor) -> Tuple[Tensor, Tensor]:
    """The loss with weight·lse(z)² more, and p with the share of p that this adds to the gradient."""
    lse = z.amax(dim=-1).detach() + log_s
    return loss + weight * lse.square(), p * (1 + 2 * weight * lse)[:, None]

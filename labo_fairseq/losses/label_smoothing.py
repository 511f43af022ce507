"""Label smoothing (Szegedy et al., 2016; Eq. 1 of the paper), and cross-entropy, which is that of mass 0.

The losses are PyTorch's and fairseq's own; here they are in closed form, with the terms of LABO, of which they are a
case. Fused with the projection they are in :mod:`.fused_linear`. Here is also what turns the prediction of a model
that was trained with one of them into a calibrated one.
"""

from typing import Optional

from torch import Tensor

from .blockwise import accumulator, check_classes
from .labo import LaboTerms, Objective, labo_log_posterior_with, labo_terms_with, uniform_smoothing


def smoothing_over_others(epsilon: float, k: int) -> Objective:
    """fairseq's label smoothing, which spreads ``epsilon`` over the K − 1 classes other than the target.

    Eq. 1 spreads α over all K classes: its α is the larger one.
    """
    return uniform_smoothing(epsilon * k / max(k - 1, 1))


def label_smoothing_terms(
    logits: Tensor,
    target: Tensor,
    label_smoothing: float = 0.1,
    over_others: bool = False,
    ignore_index: Optional[int] = -100,
) -> LaboTerms:
    """The terms of label smoothing, with the closed-form gradient.

    Args:
        logits, target, ignore_index: see :func:`.labo.labo_terms`.
        label_smoothing: its mass ε in [0, 1); 0 is cross-entropy.
        over_others: spread ε over the K − 1 classes other than the target, as fairseq does, and not over all K, as
            :class:`torch.nn.CrossEntropyLoss` does.

    Raises:
        ValueError: an option out of range, shapes that do not fit, or fewer than two classes.
    """
    epsilon = check_smoothing(label_smoothing)
    options = smoothing_over_others(epsilon, logits.size(-1)) if over_others else uniform_smoothing(epsilon)
    return labo_terms_with(options, logits, target, ignore_index)


def cross_entropy_log_posterior(logits: Tensor) -> Tensor:
    """log y of the distribution y that a model trained with cross-entropy predicts as p: y = p.

    Args:
        logits: (…, K).

    Returns:
        (…, K), float32, or float64 for float64.
    """
    return logits.log_softmax(dim=-1, dtype=accumulator(logits))


def label_smoothing_log_posterior(logits: Tensor, label_smoothing: float = 0.1, over_others: bool = False) -> Tensor:
    """log y of the distribution y = (p − ε/K)/(1−ε) that a model trained with label smoothing predicts as p.

    At its minimum the mean of the loss over y has the gradient p − (1−ε)·y − ε/K = 0 (Liang et al., 2022). The order
    of the classes is that of p.

    Args:
        logits: (…, K), float16, bfloat16, float32 or float64; those of −inf stay −inf.
        label_smoothing: the mass ε of the training, in [0, 1).
        over_others: the training spread ε over the K − 1 classes other than the target, as fairseq does, and not
            over all K, as :class:`torch.nn.CrossEntropyLoss` does.

    Returns:
        (…, K), float32, or float64 for float64; see :mod:`.posterior` for its floor.

    Raises:
        ValueError: an option out of range, or fewer than two classes.
    """
    check_smoothing(label_smoothing)
    k = logits.size(-1)
    check_classes(k)
    epsilon = label_smoothing * k / (k - 1) if over_others else label_smoothing
    if epsilon >= 1:
        raise ValueError(f"label_smoothing must be < {(k - 1) / k:g} with {k} classes, got {label_smoothing}")
    return labo_log_posterior_with(uniform_smoothing(epsilon), logits)


def check_smoothing(epsilon: float) -> float:
    """ε; ValueError where it is out of range."""
    if not 0 <= epsilon < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {epsilon}")
    return epsilon

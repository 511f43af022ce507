"""Whether a model is right as often as it says: reliability and calibration error of its most probable tokens."""

from dataclasses import dataclass
from typing import List, Optional, Sequence

import numpy as np

from ..errors import UserError


@dataclass(frozen=True)
class Bin:
    """Predictions whose confidence lies above ``lower`` and not above ``upper``."""

    lower: float
    upper: float
    tokens: int
    confidence: Optional[float]  # mean; None in an empty bin
    accuracy: Optional[float]  # share of right predictions; None in an empty bin


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> List[Bin]:
    """Predictions in ``bins`` intervals of equal width, ((m−1)/M, m/M] (Guo et al., 2017, section 2).

    Args:
        confidence: (N,), the probability of the most probable token.
        correct: (N,), bool, whether that token is the right one.

    Raises:
        UserError: fewer than one bin.
    """
    check_bins(bins)
    edges = np.arange(bins + 1) / bins
    # rounding may make a sum of probabilities a little larger than 1
    number = np.searchsorted(edges[1:-1], confidence, side="left")
    found = []
    for m in range(bins):
        inside = number == m
        tokens = int(inside.sum())
        means = (float(values[inside].mean()) if tokens else None for values in (confidence, correct))
        found.append(Bin(float(edges[m]), float(edges[m + 1]), tokens, *means))
    return found


def check_bins(bins: int) -> None:
    """UserError where ``bins`` is no number of intervals."""
    if bins < 1:
        raise UserError(f"the number of bins is {bins}: it must be at least 1")


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """ECE = Σ_m |B_m|/n · |acc(B_m) − conf(B_m)| (Guo et al., 2017, Eq. 3), in [0, 1]; 0 without predictions."""
    tokens = sum(each.tokens for each in bins)
    return sum(each.tokens / tokens * abs(each.accuracy - each.confidence) for each in bins if each.tokens)

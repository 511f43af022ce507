"""How probable a model finds the tokens that it chooses: figure 2 of the paper, and calibration beside it."""

from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from .calibration import Bin, expected_calibration_error, reliability
from .predictions import Predictions

HISTOGRAM_BINS = 20
WHOLE = "all"


@dataclass(frozen=True)
class Chosen:
    """Probabilities of the tokens of best hypotheses, the end of the sentence included."""

    tokens: int
    mean: Optional[float]  # None without a token
    median: Optional[float]
    peak: Optional[float]  # middle of the fullest bin of the histogram
    histogram: List[float]  # share of the tokens in each of HISTOGRAM_BINS equal parts of [0, 1]


@dataclass(frozen=True)
class Forced:
    """Predictions under teacher forcing, means over tokens."""

    tokens: int
    probability: float  # of the right token
    confidence: float  # of the most probable token
    accuracy: float  # how often that is the right one
    entropy: float  # bits
    ece: float  # expected calibration error
    reliability: List[Bin]


@dataclass(frozen=True)
class Confidence:
    """Both, of one system on one part of a test set."""

    test: str
    system: str
    part: str  # one of frequency.PARTS, or WHOLE
    chosen: Chosen
    forced: Forced

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)


def chosen(sentences: Sequence[np.ndarray]) -> Chosen:
    """Summary of the probabilities (tokens,) of each sentence's chosen tokens."""
    values = np.concatenate([*sentences, np.zeros(0)])
    if not len(values):
        return Chosen(0, None, None, None, [0.0] * HISTOGRAM_BINS)
    counts, edges = np.histogram(values, HISTOGRAM_BINS, (0, 1))
    fullest = int(counts.argmax())
    peak = float(edges[fullest] + edges[fullest + 1]) / 2
    shares = [float(count) / len(values) for count in counts]
    return Chosen(len(values), float(values.mean()), float(np.median(values)), peak, shares)


def forced(predictions: Predictions, bins: int = 10) -> Forced:
    """Summary of predictions under teacher forcing, of which there must be one.

    Args:
        bins: of the calibration error.
    """
    found = reliability(predictions.confidence, predictions.correct, bins)
    means = (float(values.mean()) for values in predictions)
    probability, confidence, accuracy, entropy = means
    error = expected_calibration_error(found)
    return Forced(len(predictions.correct), probability, confidence, accuracy, entropy, error, found)

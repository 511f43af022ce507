"""The numbers of a table: one method on one test set."""

import statistics
from dataclasses import dataclass
from typing import Dict, NamedTuple, Optional


class Column(NamedTuple):
    """A test set."""

    corpus: str
    direction: str  # of the translation, which in a multilingual model is not that of the run
    test: str


@dataclass(frozen=True)
class Cell:
    """One method on one test set."""

    variant: str
    column: Column
    scores: Dict[int, float]  # by seed
    delta: Optional[float]  # of the mean over the seeds that the baseline has too; None: this is the baseline
    p: Optional[float]  # of paired_p, for BLEU
    signature: str

    @property
    def mean(self) -> float:
        return statistics.mean(self.scores.values())

    @property
    def std(self) -> Optional[float]:
        """Of a sample; None for one seed."""
        return statistics.stdev(self.scores.values()) if len(self.scores) > 1 else None

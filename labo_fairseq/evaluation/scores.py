"""Corpus scores by sacreBLEU, each with the signature that makes it comparable."""

from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Sequence

from sacrebleu.metrics import BLEU, CHRF

from ..errors import UserError


@dataclass(frozen=True)
class Score:
    """One corpus score, in percent, and its sacreBLEU signature."""

    name: str
    value: float
    signature: str

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f}  ({self.signature})"

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)


def score(hypotheses: Sequence[str], references: Sequence[str]) -> List[Score]:
    """BLEU (Papineni et al., 2002) and chrF (Popović, 2015) of detokenised text, one reference a line.

    Raises:
        UserError: the numbers of lines differ, or there is none.
    """
    if len(hypotheses) != len(references) or not references:
        raise UserError(f"{len(hypotheses)} hypotheses cannot be scored against {len(references)} references")
    scores = []
    for metric in (BLEU(), CHRF()):
        result = metric.corpus_score(list(hypotheses), [list(references)])
        # sacreBLEU calls the default of chrF "chrF2", after its β
        scores.append(Score(result.name, result.score, str(metric.get_signature())))
    return scores

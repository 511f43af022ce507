"""Corpus scores by sacreBLEU, each with the signature that makes it comparable."""

from pathlib import Path
from typing import List, Sequence

from sacrebleu.metrics import BLEU, CHRF

from ..data.prepared import Prepared
from ..errors import UserError
from ..files import read_lines
from .score import Score
from .tokenised import split_compounds, tokenised_bleu


def score(hypotheses: Sequence[str], references: Sequence[str], lowercase: bool = False) -> List[Score]:
    """BLEU (Papineni et al., 2002) and chrF (Popović, 2015) of detokenised text, one reference a line.

    Args:
        lowercase: compare without case, as one must where the system writes lower case only.

    Raises:
        UserError: the numbers of lines differ, or there is none.
    """
    if len(hypotheses) != len(references) or not references:
        raise UserError(f"{len(hypotheses)} hypotheses cannot be scored against {len(references)} references")
    scores = []
    for metric in (BLEU(lowercase=lowercase), CHRF(lowercase=lowercase)):
        result = metric.corpus_score(list(hypotheses), [list(references)])
        # sacreBLEU calls the default of chrF "chrF2", after its β
        scores.append(Score(result.name, result.score, str(metric.get_signature())))
    return scores


def score_translations(data: Prepared, name: str, target: str, output: Path, tokens: Path) -> List[Score]:
    """All scores of one translated test set: against the raw text, and token by token where there are tokens.

    Args:
        name: of the test set's files, see :meth:`Prepared.split`.
        output: detokenised translations.
        tokens: the same before they were detokenised.
    """
    lowercase = data.scoring.lowercase
    scores = score(list(read_lines(output)), list(read_lines(data.raw(name, target))), lowercase)
    if not data.multilingual:
        hypotheses, references = list(read_lines(tokens)), list(read_lines(data.tokens(name, target)))
        scores.append(tokenised_bleu(hypotheses, references, "lower case" if lowercase else ""))
        if data.scoring.split_compounds:
            compounds = "compound splitting"
            scores.append(tokenised_bleu(split_compounds(hypotheses), split_compounds(references), compounds))
    return scores

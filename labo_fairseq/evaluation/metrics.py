"""Corpus scores by sacreBLEU, each with the signature that makes it comparable."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Sequence

from sacrebleu.metrics import BLEU, CHRF

from ..data.prepared_corpus import Prepared
from ..errors import UserError
from ..files import read_lines


@dataclass(frozen=True)
class Score:
    """A corpus score, in percent, and the signature that makes it comparable."""

    name: str
    value: float
    signature: str

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f}  ({self.signature})"

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)


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


def tokenised_bleu(hypotheses: Sequence[str], references: Sequence[str], note: str = "") -> Score:
    """BLEU-4 without smoothing, one tokenised reference a line; 0 where no 4-gram matches.

    Args:
        note: what else was done to both sides, for the name and the signature.

    Raises:
        UserError: the numbers of lines differ, or there is none.
    """
    if len(hypotheses) != len(references) or not references:
        raise UserError(f"{len(hypotheses)} hypotheses cannot be scored against {len(references)} references")
    # force: no warning that the text is tokenised
    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    value = metric.corpus_score(list(hypotheses), [list(references)]).score
    name = f"BLEU (tokenised, {note})" if note else "BLEU (tokenised)"
    signature = "tokenised, multi-bleu compatible"
    return Score(name, value, f"{signature}, {note}" if note else signature)


def split_compounds(lines: Sequence[str]) -> List[str]:
    """``rich-text`` or ``rich @-@ text`` as ``rich ##AT##-##AT## text``, the form that WMT'14 EN-DE is scored in.

    It is ``s{(\\S)-(\\S)}{$1 ##AT##-##AT## $2}g`` of tensor2tensor's ``get_ende_bleu.sh``, on text that Moses
    tokenised without ``-a``. What ``-a`` split is joined first: the substitution would find the dash of ``@-@`` too and
    make three tokens of it, which match each other and raise the score. Text tokenised with ``-a`` scores almost the
    same before and after.
    """
    # on bytes, as the script: of "face-à-face" it splits both dashes, of "face-a-face" only the first
    joined = [line.replace(" @-@ ", "-").encode() for line in lines]
    return [re.sub(rb"(\S)-(\S)", rb"\1 ##AT##-##AT## \2", line).decode() for line in joined]

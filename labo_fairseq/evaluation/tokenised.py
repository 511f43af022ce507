"""BLEU of text as it is tokenised, as papers report it: that of Moses' ``multi-bleu.perl``.

It depends on the tokeniser and compares only with scores of text that was tokenised alike; sacreBLEU's does not.
"""

import re
from typing import List, Sequence

from sacrebleu.metrics import BLEU

from ..errors import UserError
from .score import Score


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

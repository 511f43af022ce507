"""One line of raw text as the model of a prepared corpus reads it."""

from ..errors import UserError
from .multilingual import load_sentencepiece
from .prepare import load_bpe, to_tokens
from .prepared import Prepared


def to_subwords(data: Prepared, language: str, text: str) -> str:
    """``text`` in the corpus' BPE or SentencePiece units, separated by spaces.

    Raises:
        UserError: there is nothing in it.
    """
    if data.multilingual:
        units = " ".join(load_sentencepiece(data.sentencepiece).encode(text, out_type=str))
    else:
        units = load_bpe(data.codes).process_line(to_tokens(data.recipe, language, [text])[0])
    if not units.strip():
        raise UserError(f"the {language} text is empty")
    return units

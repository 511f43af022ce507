"""One line of raw text as the model of a prepared corpus reads it."""

from typing import Optional, Tuple

from ..errors import UserError
from .prepared_corpus import Prepared
from .preprocess import excess_of_line, excess_of_subwords, excess_of_words, load_bpe, to_tokens
from .preprocess_sentencepiece import load_sentencepiece, spaces_only


def to_tokens_and_subwords(data: Prepared, language: str, text: str) -> Tuple[str, str]:
    """``text`` as fairseq takes it where it applies the subwords itself, and in the corpus' BPE or SentencePiece units.

    Raises:
        UserError: it is too long for a sentence.
    """
    _refuse(excess_of_line(text))
    if data.uses_sentencepiece:
        # fairseq-interactive, for one, ends a line at every kind of white space that may
        tokens = spaces_only(text)
        subwords = " ".join(load_sentencepiece(data.sentencepiece).encode(tokens, out_type=str))
    else:
        (tokens,) = to_tokens(data.recipe, language, [text])
        _refuse(excess_of_words(tokens))
        subwords = load_bpe(data.codes).process_line(tokens)
    _refuse(excess_of_subwords(subwords))
    return tokens, subwords


def to_subwords(data: Prepared, language: str, text: str) -> str:
    """``text`` in the corpus' BPE or SentencePiece units, separated by spaces.

    Raises:
        UserError: there is nothing in it, or it is too long for a sentence.
    """
    _, subwords = to_tokens_and_subwords(data, language, text)
    if not subwords.strip():
        raise UserError(f"the {language} text is empty")
    return subwords


def _refuse(excess: Optional[str]) -> None:
    if excess:
        raise UserError(f"a sentence has {excess}: cut it into several")

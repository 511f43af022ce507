"""How a corpus is scored: what its declaration says, and what follows from the target language."""

from dataclasses import dataclass
from typing import Iterable, Optional

from ..errors import UserError
from .languages import bleu_tokenizer
from .types import Scoring

#: sacreBLEU's tokenizer → the extra of sacreBLEU that it needs
_EXTRAS = {"ja-mecab": "ja", "ko-mecab": "ko"}


@dataclass(frozen=True)
class DeclaredScoring:
    """How translations of a corpus are scored, whatever the target language."""

    lowercase: bool = False
    split_compounds: bool = False
    tokenize: Optional[str] = None  # sacreBLEU's tokenizer; None: by the target language

    def for_target(self, target: str) -> Scoring:
        """How translations into ``target`` are scored."""
        return Scoring(self.lowercase, self.tokenize or bleu_tokenizer(target), self.split_compounds)

    def check(self, targets: Iterable[str]) -> None:
        """See that sacreBLEU can score these target languages here, before anything is trained.

        Raises:
            UserError: its tokenizer is unknown, or needs a package that is not installed.
        """
        from sacrebleu.metrics import BLEU

        for target in targets:
            tokenize = self.for_target(target).tokenize
            if tokenize not in BLEU.TOKENIZERS:
                raise UserError(f"sacreBLEU has no tokenizer {tokenize!r}: choose from {', '.join(BLEU.TOKENIZERS)}")
            try:
                BLEU(tokenize=tokenize)
            except (ImportError, RuntimeError, OSError) as error:
                extra = _EXTRAS.get(tokenize)
                remedy = f"pip install 'sacrebleu[{extra}]'" if extra else " ".join(str(error).split())
                raise UserError(
                    f"BLEU of {target} needs sacreBLEU's tokenizer {tokenize!r}, which cannot be used here: {remedy}"
                ) from None


#: of a corpus that says nothing about it
DEFAULT_SCORING = DeclaredScoring()

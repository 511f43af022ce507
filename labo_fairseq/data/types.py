"""What a corpus is to the rest of the package: its pairs, its splits, and how translations of it are scored."""

from dataclasses import dataclass
from typing import Dict, Iterable, Optional, Tuple

from ..errors import UserError

#: source and target, raw text without line breaks
Pair = Tuple[str, str]

#: split → its pairs, which may be a stream. "train"; "valid", unless it is to be cut out of the training set;
#: every other name is a test set, and the first of them is the main one.
Corpus = Dict[str, Iterable[Pair]]

#: language → sacreBLEU's tokenizer, where it is not "13a"
_TOKENIZERS = {"zh": "zh", "yue": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}

#: sacreBLEU's tokenizer → the extra of this package, and of sacreBLEU, that it needs
_EXTRAS = {"ja-mecab": "ja", "ko-mecab": "ko"}


@dataclass(frozen=True)
class Scoring:
    """How translations of a corpus are scored."""

    lowercase: bool = False  # without case: the systems write lower case only
    tokenize: str = "13a"  # sacreBLEU's tokenizer for BLEU
    split_compounds: bool = False  # tokenized BLEU with compounds split too, as papers on WMT'14 report it


def bleu_tokenizer(language: str) -> str:
    """sacreBLEU's tokenizer for text in this language: ``"zh"``, ``"ja-mecab"``, ``"ko-mecab"``, else ``"13a"``."""
    return _TOKENIZERS.get(language.split("_")[0], "13a")


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
                remedy = f"pip install 'labo-fairseq[{extra}]'" if extra else " ".join(str(error).split())
                raise UserError(
                    f"BLEU of {target} needs sacreBLEU's tokenizer {tokenize!r}, which cannot be used here: {remedy}"
                ) from None


#: of a corpus that says nothing about it
DEFAULT_SCORING = DeclaredScoring()

"""What a corpus is to the rest of the package."""

from dataclasses import dataclass
from typing import Dict, Iterable, Tuple

#: source and target, raw text without line breaks
Pair = Tuple[str, str]

#: split → its pairs, which may be a stream. "train"; "valid", unless it is to be cut out of the training set;
#: every other name is a test set, and the first of them is the main one.
Corpus = Dict[str, Iterable[Pair]]


@dataclass(frozen=True)
class Scoring:
    """How translations of a corpus are scored."""

    lowercase: bool = False  # without case: the systems write lower case only
    tokenize: str = "13a"  # sacreBLEU's tokenizer for BLEU
    split_compounds: bool = False  # tokenized BLEU with compounds split too, as papers on WMT'14 report it

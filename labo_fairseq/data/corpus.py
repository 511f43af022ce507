"""What a corpus is to the rest of the package."""

from typing import Dict, Iterable, Tuple

#: source and target, raw text without line breaks
Pair = Tuple[str, str]

#: split → its pairs, which may be a stream. "train"; "valid", unless it is to be cut out of the training set;
#: every other name is a test set, and the first of them is the main one.
Corpus = Dict[str, Iterable[Pair]]

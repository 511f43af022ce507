"""What a corpus is to the rest of the package."""

from typing import Dict, List, Tuple

#: split ("train", "valid", "test") → sentence pairs (source, target), raw text without line breaks
Corpus = Dict[str, List[Tuple[str, str]]]

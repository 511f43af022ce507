"""Sentences by how frequent their tokens are in the training text: section 5.1 of the paper.

A token is what the model reads, a subword. The script that Raunak et al. (2020) published with the score reads the
counts out of fairseq's joined dictionary: of subwords, in both languages of the training text. So do these functions.
Subwords also leave no token without a count, and every corpus has them.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

from ..errors import UserError
from ..evaluation.metrics import score
from ..files import read_lines

PARTS = ("most", "medium", "least")


@dataclass(frozen=True)
class PartScore:
    """BLEU of one system on one part of a test set, in percent."""

    test: str
    part: str
    sentences: int
    frequency: float  # mean Frequency Score of the part's sentences
    system: str
    bleu: float
    delta: Optional[float]  # to the first system; None: this is the first
    signature: str

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)


def count_tokens(texts: Iterable[Path]) -> Counter:
    """How often each token occurs in files of tokens separated by spaces."""
    counts: Counter = Counter()
    for text in texts:
        for line in read_lines(text):
            counts.update(line.split())
    return counts


def frequency_scores(lines: Iterable[str], counts: Mapping[str, int]) -> List[float]:
    """F(x) = Σ f(x_i) / N of every line (Eq. 18); 0 where a line has no token."""
    tokens = (line.split() for line in lines)
    return [sum(counts.get(token, 0) for token in each) / max(len(each), 1) for each in tokens]


def thirds(scores: Sequence[float]) -> List[List[int]]:
    """Indices of the sentences in the order of decreasing score, cut into three.

    Equal scores keep their order. Where three does not divide the number, the first parts are longer by one.

    Raises:
        UserError: fewer than three sentences.
    """
    if len(scores) < len(PARTS):
        raise UserError(f"{len(scores)} sentences cannot be cut into {len(PARTS)} parts")
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    size, longer = divmod(len(order), len(PARTS))
    cuts = [part * size + min(part, longer) for part in range(len(PARTS) + 1)]
    return [order[start:end] for start, end in zip(cuts, cuts[1:])]


def score_parts(
    test: str,
    scores: Sequence[float],
    systems: Mapping[str, Sequence[str]],
    references: Sequence[str],
    lowercase: bool = False,
) -> List[PartScore]:
    """BLEU of every system on each third of a test set, by system, then by part.

    Args:
        scores: Frequency Score of every source sentence.
        systems: name → detokenised translations, the baseline first.
        references: one a sentence.
        lowercase: compare without case.

    Raises:
        UserError: numbers of sentences that differ, or fewer than three.
    """
    for name, lines in {"the references": references, **systems}.items():
        if len(lines) != len(scores):
            raise UserError(f"{test}: {name} has {len(lines)} lines, but there are {len(scores)} source sentences")
    found: List[PartScore] = []
    first: Dict[str, float] = {}
    for system, hypotheses in systems.items():
        for part, indices in zip(PARTS, thirds(scores)):
            bleu = score([hypotheses[i] for i in indices], [references[i] for i in indices], lowercase)[0]
            frequency = sum(scores[i] for i in indices) / len(indices)
            delta = bleu.value - first[part] if part in first else None
            first.setdefault(part, bleu.value)
            found.append(PartScore(test, part, len(indices), frequency, system, bleu.value, delta, bleu.signature))
    return found

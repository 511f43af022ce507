"""What is chosen for a corpus that declares no subwords or no training: by the size of its training text, and said."""

import math
import sys
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Dict, Iterable, NamedTuple, Optional, Set, Tuple

from ..data.corpora.declaration import Declaration, Preprocessing, Training
from ..data.languages import has_moses_rules
from ..data.types import Pair

_ENOUGH = 2_000_000  # pairs: more of them choose nothing else
#: UTF-8 bytes per subword (four letters of an alphabet, or a bit more than one Chinese character), and the share of a
#: batch that is not padding. With these, 8,000 pairs of Multi30k make 84 updates per epoch, as measured.
_BYTES_PER_SUBWORD, _FILL = 4, 0.87
#: a small text is read more often, until a model has learned something
_LEAST_UPDATES, _MOST_EPOCHS = 1_000, 200


class Size(NamedTuple):
    """What a training text amounts to; both languages together, but for the pairs."""

    pairs: int
    longer_bytes: int  # of the longer side of every pair, which decides how many pairs make a batch
    characters: int  # different ones
    letters: int  # all of them


@dataclass(frozen=True)
class Tier:
    """What is chosen below a number of pairs."""

    below: float
    model: str
    subwords: int
    max_tokens: int
    lr: float
    epochs: int


#: the first is that of the demo, the second that of the Multi30k pilot, the last two are the paper's
TIERS = (
    Tier(5_000, "transformer_tiny", 1_000, 2048, 0.0015, 60),
    Tier(20_000, "transformer_small", 2_000, 2048, 0.0015, 40),
    Tier(120_000, "transformer_small", 8_000, 4096, 0.0015, 40),
    Tier(1_500_000, "transformer_iwslt_de_en", 10_000, 4096, 0.0005, 60),
    Tier(float("inf"), "transformer_base", 32_000, 4096 * 8, 0.0007, 20),
)
_MAX_TOKENS = 4096  # of one GPU
_WARMUP = "criterion.smoothing_warmup_steps"


def measure(texts: Iterable[Iterable[Pair]]) -> Size:
    """The size of the training texts of all directions of a model together."""
    pairs = longer_bytes = letters = 0
    characters: Set[str] = set()
    for text in texts:
        for source, target in islice(text, _ENOUGH):
            pairs += 1
            longer_bytes += max(len(source.encode("utf-8")), len(target.encode("utf-8")))
            letters += len(source) + len(target)
            characters.update(source)
            characters.update(target)
    return Size(pairs, longer_bytes, len(characters), letters)


def is_open(corpus: Declaration) -> bool:
    """Whether something about a corpus is still to be chosen by its size."""
    return corpus.training is None or corpus.preprocessing.subwords is None


def tokenizer_for(preprocessing: Preprocessing, directions: Tuple[Pair, ...]) -> str:
    """``"moses"`` or ``"sentencepiece"``: what was declared, or what the languages need."""
    if preprocessing.tokenizer is not None:
        return preprocessing.tokenizer
    languages = {language for direction in directions for language in direction}
    return "moses" if len(directions) == 1 and all(map(has_moses_rules, languages)) else "sentencepiece"


def choose(corpus: Declaration, directions: Tuple[Pair, ...], size: Size) -> Declaration:
    """``corpus`` with subwords and training chosen for a model of some directions; stderr is told."""
    tier = next(tier for tier in TIERS if size.pairs < tier.below)
    tokenizer = tokenizer_for(corpus.preprocessing, directions)
    chosen = []
    preprocessing = replace(corpus.preprocessing, tokenizer=tokenizer)
    if preprocessing.subwords is None:
        preprocessing = replace(preprocessing, subwords=_subwords(tier, tokenizer, size))
        kind = "BPE merge operations" if tokenizer == "moses" else "SentencePiece units"
        chosen.append(f"{preprocessing.subwords:,} {kind}")
    training = corpus.training
    if training is None:
        training, updates = _training(tier, size)
        epochs, warmup = (training.settings[name] for name in ("optimization.max_epoch", _WARMUP))
        length = f"{epochs} epochs (about {updates:,} updates), smoothing warm-up {warmup:,} updates"
        chosen.append(f"{tier.model}, learning rate {tier.lr:g}, {length}")
    print(f"{corpus.name}: {size.pairs:,} training pairs; chosen: {'; '.join(chosen)}", file=sys.stderr)
    return replace(corpus, preprocessing=preprocessing, training=training)


def _subwords(tier: Tier, tokenizer: str, size: Size) -> int:
    if tokenizer == "moses":
        return tier.subwords
    # SentencePiece counts characters as units, and refuses more units than a text gives
    return min(max(tier.subwords, size.characters + tier.subwords // 2), size.characters + max(50, size.letters // 40))


def _training(tier: Tier, size: Size) -> Tuple[Training, int]:
    tokens = size.longer_bytes / _BYTES_PER_SUBWORD + size.pairs  # every sentence has an end
    per_epoch = max(1, math.ceil(tokens / (tier.max_tokens * _FILL)))
    epochs = max(tier.epochs, min(_MOST_EPOCHS, math.ceil(_LEAST_UPDATES / per_epoch)))
    updates = per_epoch * epochs
    settings: Dict[str, Any] = {
        "dataset.max_tokens": min(tier.max_tokens, _MAX_TOKENS),
        "optimization.update_freq": [max(1, tier.max_tokens // _MAX_TOKENS)],
        "optimization.lr": [tier.lr],
        "optimization.max_epoch": epochs,
        "lr_scheduler.warmup_updates": max(50, min(1000, updates // 8)),
        _WARMUP: max(20, min(5000, updates * 7 // 100)),
    }
    groups = {"model": tier.model, "optimizer": "adam_inverse_sqrt", "schedule": "by_size"}
    return Training(groups, settings), updates


def smallest_training() -> Training:
    """What is chosen for the smallest text, where what is asked does not depend on the size."""
    return _training(TIERS[0], Size(1, 1, 1, 1))[0]


def without_moses(preprocessing: Preprocessing, directions: Tuple[Pair, ...]) -> Optional[str]:
    """Why text is not split by Moses' rules, where the declaration leaves it open; None where it is."""
    if preprocessing.tokenizer is not None or tokenizer_for(preprocessing, directions) == "moses":
        return None
    languages = dict.fromkeys(language for direction in directions for language in direction)
    without = [language for language in languages if not has_moses_rules(language)]
    return f"no Moses rules for {' and '.join(without)}" if without else "several directions in one model"

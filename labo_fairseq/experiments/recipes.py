"""The corpora under their names: how each is read, prepared and trained."""

import math
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from ..data.corpora import load_corpus, read_parallel
from ..data.moses import check_languages
from ..data.multilingual import MultilingualRecipe, prepare_multilingual
from ..data.prepared_corpus import Prepared
from ..data.preprocess import Clean, Recipe, prepare
from ..data.types import Corpus, Pair
from ..errors import UserError
from ..evaluation.runs import BEST, LAST, Run
from ..files import SPECIAL_IN_DATA, SPECIAL_IN_RUN, check_folder, locked
from .config import Config, compose, has_warmup

MULTILINGUAL = "multilingual"


@dataclass(frozen=True)
class Setup:
    """A corpus, and what is made of it."""

    prepared: Tuple[Union[Recipe, MultilingualRecipe], ...]
    checkpoint: str = BEST  # or LAST: which of a training is scored

    @property
    def directions(self) -> Dict[str, Tuple[Union[Recipe, MultilingualRecipe], Tuple[Pair, ...]]]:
        """Name of a direction → the recipe that serves it, and the directions of its model."""
        found = {}
        for recipe in self.prepared:
            if isinstance(recipe, MultilingualRecipe):
                found[MULTILINGUAL] = recipe, recipe.directions
            else:
                # the same files serve both directions
                for direction in (recipe.languages, recipe.languages[::-1]):
                    found["-".join(direction)] = recipe, (direction,)
        return found


_TED = {
    # fairseq's prepare-iwslt14.sh
    "bpe_operations": 10000,
    "escape": True,
    "dash_splits": False,
    "lowercase": True,
    "clean": Clean(ratio=1.5, minimum=1, maximum=175, unit="tokens"),
    "validation_every": 23,
}

SETUPS: Dict[str, Setup] = {
    "iwslt14": Setup((Recipe("iwslt14", "de", "en", **_TED), Recipe("iwslt14", "fr", "en", **_TED))),
    # fairseq's prepare-iwslt17-multilingual.sh
    "iwslt17": Setup((MultilingualRecipe("iwslt17", (("de", "en"), ("fr", "en")), vocabulary=16384, maximum=250),)),
    # fairseq's prepare-wmt14en2de.sh --icml17
    "wmt14": Setup(
        (
            Recipe(
                "wmt14",
                "en",
                "de",
                bpe_operations=40000,
                escape=True,
                normalise=True,
                clean=Clean(ratio=1.5, minimum=1, maximum=250, unit="subwords"),
                validation_every=100,
            ),
        )
    ),
    "multi30k": Setup(tuple(Recipe("multi30k", language, "en", bpe_operations=10000) for language in ("de", "fr"))),
    # the demo's: what two CPU cores can do in minutes
    "bible": Setup(
        tuple(Recipe("bible", *pair, bpe_operations=3000) for pair in (("de", "en"), ("fr", "en"), ("de", "fr"))), LAST
    ),
}

# enough to see every step work, on a CPU
_SMOKE_PAIRS = {True: 2000, False: 50}  # of a training set, of any other
_SMOKE_UNITS, _SMOKE_VALIDATION = 1000, 20
_SMOKE_SETTINGS = (
    *("optimization.max_update=30", "dataset.max_tokens=1000", "optimization.update_freq=[1]"),
    "lr_scheduler.warmup_updates=10",  # learns when to end a sentence: else every translation is as long as may be
    *("model.encoder.layers=1", "model.decoder.layers=1", "model.encoder.embed_dim=64", "model.decoder.embed_dim=64"),
    *("common.log_interval=5", "checkpoint.save_interval_updates=10", "dataset.validate_interval_updates=30"),
)
_SMOKE_WARMUP = "criterion.smoothing_warmup_steps=15"


class First:
    """The first so many pairs of a stream."""

    def __init__(self, pairs: Any, number: int) -> None:
        self.pairs, self.number = pairs, number

    def __iter__(self) -> Iterator[Pair]:
        return islice(iter(self.pairs), self.number)


def find(corpus: str, direction: str) -> Tuple[Union[Recipe, MultilingualRecipe], Tuple[Pair, ...]]:
    """The recipe of a corpus that serves a direction such as ``"de-en"``, and the directions of its model.

    Raises:
        UserError: no such corpus or direction.
    """
    if corpus not in SETUPS:
        raise UserError(f"unknown corpus {corpus!r}: choose from {', '.join(SETUPS)}")
    directions = SETUPS[corpus].directions
    if direction not in directions:
        raise UserError(f"{corpus} has no direction {direction!r}: choose from {', '.join(directions)}")
    return directions[direction]


def prepare_custom(
    direction: str,
    files: Dict[str, Sequence[Path]],
    folder: Path,
    bpe_operations: int,
    lowercase: bool,
    clean: Optional[Sequence[float]],
    validation_every: Optional[int],
    workers: int,
) -> Prepared:
    """The user's own files, split → (source, target), through the same pipeline into ``folder``.

    Raises:
        UserError: a split without files, files that do not fit each other, or see :func:`prepare`.
    """
    check_folder(folder, SPECIAL_IN_DATA)
    source, _, target = direction.partition("-")
    if not (source and target) or source == target:
        raise UserError(f"{direction!r} is no direction: write two languages as in de-en")
    check_languages((source, target))
    for split in ("train", "test", *(() if validation_every else ("valid",))):
        if split not in files:
            raise UserError(f"no {split} set: name its two files with --{split} SOURCE TARGET")
    if validation_every and "valid" in files:
        raise UserError("--valid and --validation-every exclude each other")
    rule = None if clean is None else _rule(*clean)
    corpus = {split: read_parallel(*paths) for split, paths in files.items()}
    text = "; ".join(f"{split} {' '.join(map(str, paths))}" for split, paths in files.items())
    recipe = Recipe(
        text,
        source,
        target,
        bpe_operations,
        lowercase=lowercase,
        clean=rule,
        validation_every=validation_every,
        workers=workers,
    )
    with locked(folder.parent, wait=True):
        return prepare(corpus, recipe, folder)


def prepare_corpus(
    recipe: Union[Recipe, MultilingualRecipe],
    folder: Path,
    workers: int,
    archive_dir: Optional[Path] = None,
    smoke: bool = False,
) -> Prepared:
    """The corpus of ``recipe`` in ``folder``, prepared unless it is there already.

    Raises:
        UserError: see :func:`labo_fairseq.data.corpora.load_corpus` and :func:`prepare`.
    """
    wanted = replace(_smaller(recipe) if smoke else recipe, workers=workers)
    prepared = Prepared(check_folder(folder, SPECIAL_IN_DATA))

    def load(source: str, target: str) -> Corpus:
        corpus = load_corpus(recipe.corpus, source, target, archive_dir)
        if not smoke:
            return corpus
        return {split: First(pairs, _SMOKE_PAIRS[split == "train"]) for split, pairs in corpus.items()}

    with locked(folder.parent, wait=True):
        if prepared.recipe == wanted.to_json():
            prepared.check(wanted.to_json())
            return prepared
        if isinstance(wanted, MultilingualRecipe):
            return prepare_multilingual({each: load(*each) for each in wanted.directions}, wanted, folder)
        return prepare(load(*wanted.languages), wanted, folder)


def run_config(
    corpus: str, direction: str, method: str, seed: int, overrides: Sequence[str] = (), smoke: bool = False
) -> Config:
    """``configs/CORPUS_DIRECTION.yaml`` with a method of ``configs/criterion``, for one run.

    Raises:
        UserError: see :func:`compose`; or the settings leave nothing to score.
    """
    small: List[str] = list(_SMOKE_SETTINGS) if smoke else []
    if smoke and has_warmup(method):
        small.append(_SMOKE_WARMUP)
    config = compose(f"{corpus}_{direction}_{method}", [*small, f"common.seed={seed}", *overrides])
    if SETUPS[corpus].checkpoint == BEST and config["dataset"].get("disable_validation"):
        raise UserError("dataset.disable_validation leaves no best checkpoint, which is the one scored: leave it out")
    return config


def build_run(corpus: str, direction: str, config: Config, data: Prepared, folder: Path) -> Run:
    """The run of ``config``, see :func:`run_config`, on prepared ``data``."""
    return Run(folder, data, find(corpus, direction)[1], config, SETUPS[corpus].checkpoint)


def run_folder(root: Path, corpus: str, direction: str, name: str) -> Path:
    """Where a run lies below ``root``.

    Raises:
        UserError: ``name`` leads elsewhere, or see :func:`check_folder`.
    """
    parts = Path(name).parts
    if not parts or ".." in parts or Path(name).is_absolute():
        raise UserError(f"{name!r} is no name of a folder")
    return check_folder(root / corpus / direction / name, SPECIAL_IN_RUN)


def _rule(ratio: float, minimum: float, maximum: float) -> Clean:
    if not (1 <= ratio < math.inf and 0 <= minimum <= maximum < math.inf and minimum % 1 == maximum % 1 == 0):
        raise UserError(
            f"--clean {ratio:g} {minimum:g} {maximum:g} is no rule: RATIO must be at least 1, MIN and MAX whole "
            "numbers, MIN at most MAX"
        )
    return Clean(ratio, int(minimum), int(maximum), "tokens")


def _smaller(recipe: Union[Recipe, MultilingualRecipe]) -> Union[Recipe, MultilingualRecipe]:
    name = f"{recipe.corpus}, first {_SMOKE_PAIRS[True]} and {_SMOKE_PAIRS[False]} pairs"
    if isinstance(recipe, MultilingualRecipe):
        return replace(recipe, corpus=name, vocabulary=_SMOKE_UNITS)
    every = recipe.validation_every and _SMOKE_VALIDATION
    return replace(recipe, corpus=name, bpe_operations=_SMOKE_UNITS, validation_every=every)

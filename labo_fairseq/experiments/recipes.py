"""What a corpus and a direction stand for: how the text is prepared, and how a model is trained on it."""

import os
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from ..data.archives import archive_folder
from ..data.corpora import read_corpus
from ..data.corpora.declaration import Declaration, Training, load_declaration
from ..data.corpora.sources import First
from ..data.languages import language_token
from ..data.moses import check_languages
from ..data.overlap import warn_of_repeated_pairs
from ..data.prepared_corpus import Prepared
from ..data.preprocess import Recipe, prepare
from ..data.preprocess_sentencepiece import SentencePieceRecipe, prepare_sentencepiece
from ..data.types import Corpus, Pair
from ..errors import UserError
from ..evaluation.runs import BEST, Run
from ..files import SPECIAL_IN_DATA, check_folder, locked, methods, shipped_corpora
from .config import Config, check_with_fairseq, has_warmup, merge_files
from .run_directory import run_folder
from .sizing import choose, is_open, measure, smallest_training, tokenizer_for, without_moses

AnyRecipe = Union[Recipe, SentencePieceRecipe]

# enough to see every step work, on a CPU
_SMOKE_PAIRS = {True: 2000, False: 50}  # of a training set, of any other
_SMOKE_UNITS, _SMOKE_VALIDATION = 1000, 20
_SMOKE_CHARACTERS = 4000  # units, where each of thousands of characters is one
_SMOKE_UPDATES = 30
_SMOKE_SETTINGS = (
    *(f"optimization.max_update={_SMOKE_UPDATES}", "dataset.max_tokens=1000", "optimization.update_freq=[1]"),
    "lr_scheduler.warmup_updates=10",  # learns when to end a sentence: else every translation is as long as may be
    *("model.encoder.layers=1", "model.decoder.layers=1", "model.encoder.embed_dim=64", "model.decoder.embed_dim=64"),
    *("common.log_interval=5", "checkpoint.save_interval_updates=10", "dataset.validate_interval_updates=30"),
)
_SMOKE_WARMUP = "criterion.smoothing_warmup_steps=15"


@dataclass(frozen=True)
class Plan:
    """A corpus and a direction, with what a configuration depends on."""

    corpus: Declaration
    direction: str  # as folders are named
    directions: Tuple[Pair, ...]  # of the model
    training: Training


@dataclass(frozen=True)
class Setup(Plan):
    """A corpus and a direction, with everything about them chosen."""

    recipe: AnyRecipe

    def data_folder(self, root: Path, smoke: bool = False) -> Path:
        """Where the prepared text lies below ``root``."""
        return root / self.corpus.name / f"data-{self.recipe.name}{'-smoke' if smoke else ''}"

    def run_folder(self, root: Path, name: str) -> Path:
        """Where a run lies below ``root``.

        Raises:
            UserError: ``name`` leads elsewhere, or see :func:`check_folder`.
        """
        return run_folder(root, self.corpus.name, self.direction, name)


def find(corpus: str, direction: str, archive_dir: Optional[Path] = None, smoke: bool = False) -> Setup:
    """The set-up of a corpus (a name, or a YAML file) and a direction such as ``"de-en"``.

    Args:
        smoke: whether only the first pairs will be used, so that their number counts.

    Raises:
        UserError: no such corpus or direction; where the size of a corpus matters, see :func:`read_corpus`.
    """
    given = archive_folder(archive_dir)
    changed = _changed_at(corpus), given and _changed_at(str(given / f"{corpus}.yaml"))
    return _find(str(corpus), str(direction), given, smoke, changed)


def _changed_at(path: str) -> Optional[int]:
    return os.stat(path).st_mtime_ns if os.path.isfile(path) else None


@lru_cache(maxsize=None)  # a grid asks for it once per run
def _find(corpus: str, direction: str, archive_dir: Optional[Path], smoke: bool, changed: Any) -> Setup:
    return setup_of(load_declaration(corpus, archive_dir), direction, archive_dir, smoke)


def setup_of(corpus: Declaration, direction: str, archive_dir: Optional[Path] = None, smoke: bool = False) -> Setup:
    """The set-up of a declared corpus and one of its directions; see :func:`find`."""
    name, directions = corpus.find(direction)
    reason = without_moses(corpus.preprocessing, directions)
    if reason:
        print(f"{corpus.name}: {reason}, so raw text in SentencePiece units", file=sys.stderr)
    if is_open(corpus):
        texts = (read_corpus(corpus, pair, archive_dir)["train"] for pair in directions)
        size = measure(First(text, _SMOKE_PAIRS[True] if smoke else None) for text in texts)
        corpus = choose(corpus, directions, size)
        if smoke:
            print(f"{corpus.name}: in a smoke test {_SMOKE_UPDATES} updates of a tiny model instead", file=sys.stderr)
    assert corpus.training is not None
    return Setup(corpus, name, directions, corpus.training, _recipe(corpus, directions))


def check_settings(
    corpus: Declaration, direction: str, method: str, seed: int, overrides: Sequence[str] = (), smoke: bool = False
) -> None:
    """See that a run can have these settings, without a look at the text.

    Raises:
        UserError: see :func:`run_config`.
    """
    plan = Plan(corpus, *corpus.find(direction), corpus.training or smallest_training())
    run_config(plan, method, seed, overrides, smoke)


def _recipe(corpus: Declaration, directions: Tuple[Pair, ...]) -> AnyRecipe:
    preprocessing = corpus.preprocessing
    assert preprocessing.subwords is not None
    shared: Dict[str, Any] = {
        "corpus": corpus.identity(directions),
        "lowercase": preprocessing.lowercase,
        "validation_every": preprocessing.validation_every,
        "scoring": corpus.scoring,
    }
    # the same files serve both directions of a pair
    declared = tuple(pair if pair in corpus.texts else pair[::-1] for pair in directions)
    if len(directions) > 1 or tokenizer_for(preprocessing, directions) == "sentencepiece":
        return SentencePieceRecipe(
            directions=directions if directions == corpus.multilingual else declared,
            vocabulary=preprocessing.subwords,
            maximum=preprocessing.maximum,
            multilingual=directions == corpus.multilingual,
            **shared,
        )
    check_languages(declared[0])
    return Recipe(
        source=declared[0][0],
        target=declared[0][1],
        bpe_operations=preprocessing.subwords,
        escape=preprocessing.escape,
        dash_splits=preprocessing.dash_splits,
        normalize=preprocessing.normalize,
        clean=preprocessing.clean,
        **shared,
    )


def prepare_corpus(
    setup: Setup, folder: Path, workers: int, archive_dir: Optional[Path] = None, smoke: bool = False
) -> Prepared:
    """The corpus of ``setup`` in ``folder``, prepared unless it is there already.

    Raises:
        UserError: see :func:`labo_fairseq.data.corpora.read_corpus` and :func:`prepare`; or ``folder`` holds another
            of the user's own.
    """
    wanted = replace(_smaller(setup.recipe) if smoke else setup.recipe, workers=workers)
    prepared = Prepared(check_folder(folder, SPECIAL_IN_DATA))

    def load(pair: Pair) -> Corpus:
        corpus = read_corpus(setup.corpus, pair, archive_dir)
        if not smoke:
            return corpus
        return {split: First(pairs, _SMOKE_PAIRS[split == "train"]) for split, pairs in corpus.items()}

    with locked(folder.parent, wait=True):
        if prepared.recipe == wanted.to_json():
            prepared.check(wanted.to_json())
            return prepared
        # of a corpus that comes with the package, other settings are those of another version
        other = not smoke and prepared.recipe.get("corpus") != wanted.corpus
        if prepared.recipe and (other or not setup.corpus.shipped):
            raise UserError(
                f"{folder} holds another text, or the same one prepared with other settings: choose another "
                "directory, or delete it"
            )
        if isinstance(wanted, SentencePieceRecipe):
            prepare_sentencepiece({pair: load(pair) for pair in wanted.directions}, wanted, folder)
        else:
            prepare(load(wanted.languages), wanted, folder)
        for direction in () if setup.corpus.shipped else setup.directions:
            warn_of_repeated_pairs(prepared, direction)
        return prepared


def run_config(plan: Plan, method: str, seed: int, overrides: Sequence[str] = (), smoke: bool = False) -> Config:
    """The configuration of one run: the plan's training with a method of ``configs/criterion``.

    Raises:
        UserError: see :func:`merge_files`; or the settings leave nothing to score.
    """
    small: List[str] = list(_SMOKE_SETTINGS) if smoke else []
    if smoke and has_warmup(method):
        small.append(_SMOKE_WARMUP)
    config = configuration(plan, method, overrides, [*small, f"common.seed={seed}"])
    if plan.training.checkpoint == BEST and config["dataset"].get("disable_validation"):
        raise UserError("dataset.disable_validation leaves no best checkpoint, which is the one scored: leave it out")
    return config


def configuration(plan: Plan, method: str, overrides: Sequence[str] = (), own: Sequence[str] = ()) -> Config:
    """The plan's training with a method of ``configs/criterion``, and ``overrides`` on top.

    Args:
        own: overrides below those, of which fairseq is known to take them.

    Raises:
        UserError: see :func:`merge_files` and :func:`check_with_fairseq`.
    """
    if method not in methods():
        raise UserError(f"unknown method {method!r}: choose from {', '.join(methods())}")
    if plan.directions == plan.corpus.multilingual:
        task = "multilingual"
        languages = sorted({language for direction in plan.directions for language in direction})
        directions: Dict[str, Any] = {
            "task.lang_pairs": ",".join(map("-".join, plan.directions)),
            "task.langs": languages,
            "task.encoder_langtok": language_token(plan.directions),
        }
    else:
        moses = tokenizer_for(plan.corpus.preprocessing, plan.directions) == "moses"
        task = "bilingual" if moses else "sentencepiece"
        directions = dict(zip(("task.source_lang", "task.target_lang"), plan.directions[0]))
    groups = {"common": "default", "task": task, "optimizer": "adam_inverse_sqrt", **plan.training.groups}
    config = merge_files(groups, method, {**directions, **plan.training.settings}, [*own, *overrides])
    if overrides or not plan.corpus.shipped:
        check_with_fairseq(config, overrides)
    return config


def available() -> Sequence[str]:
    """Names of the configurations of the corpora that come with the package, CORPUS_DIRECTION_METHOD."""
    return sorted(
        f"{corpus}_{direction}_{method}"
        for corpus in shipped_corpora()
        for direction in load_declaration(corpus).directions
        for method in methods()
    )


def compose(name: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration CORPUS_DIRECTION_METHOD, where the corpus may also be a YAML file.

    Raises:
        UserError: there is none, or see :func:`configuration`.
    """
    stem, _, method = name.rpartition("_")
    for place, letter in enumerate(stem):
        corpus = stem[:place]
        if letter == "_" and method in methods() and (corpus in shipped_corpora() or Path(corpus).is_file()):
            return configuration(find(corpus, stem[place + 1 :]), method, overrides)
    raise UserError(
        f"no configuration {name!r}: join a corpus ({', '.join(shipped_corpora())}, or a YAML file), a direction and "
        f"one of {', '.join(methods())} with '_'"
    )


def build_run(setup: Setup, config: Config, data: Prepared, folder: Path) -> Run:
    """The run of ``config``, see :func:`run_config`, on prepared ``data``."""
    return Run(folder, config, data, setup.directions, setup.training.checkpoint)


def _smaller(recipe: AnyRecipe) -> AnyRecipe:
    name = f"{recipe.corpus}, first {_SMOKE_PAIRS[True]} and {_SMOKE_PAIRS[False]} pairs"
    every = recipe.validation_every and _SMOKE_VALIDATION
    if isinstance(recipe, SentencePieceRecipe):
        units = min(recipe.vocabulary, _SMOKE_CHARACTERS if recipe.keeps_forms else _SMOKE_UNITS)
        return replace(recipe, corpus=name, vocabulary=units, validation_every=every)
    return replace(recipe, corpus=name, bpe_operations=_SMOKE_UNITS, validation_every=every)

"""The main job: a small translator of Bible verses, from the archive to BLEU, on a laptop."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

from ..data.bible import load_bible, split_by_chapter
from ..data.fetch import cache_folder
from ..data.prepare import Recipe, prepare
from ..data.prepared import Prepared
from ..files import locked
from .config import compose
from .run import LAST, Run
from .summary import summarise


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    verses: Optional[int]  # the first so many of the Bible; None: all
    bpe_operations: int
    settings: Sequence[str] = ()  # on top of configs/bible_*.yaml
    warmup: Optional[int] = None  # smoothing warm-up, where there is one


FULL = Size(verses=None, bpe_operations=3000)
SMOKE = Size(
    verses=1500,
    bpe_operations=300,
    settings=(
        *("optimization.max_update=40", "lr_scheduler.warmup_updates=10", "common.log_interval=5"),
        *("checkpoint.save_interval_updates=20", "dataset.validate_interval_updates=20"),
    ),
    warmup=20,
)

# One chapter in so many goes to the validation and to the test set.
_VALID, _TEST = 60, 30


def demo(
    folder: Path,
    source: str = "de",
    target: str = "en",
    method: str = "labo",
    seed: int = 1,
    size: Size = FULL,
    name: Optional[str] = None,
    overrides: Sequence[str] = (),
    gpus: Optional[int] = None,
    fresh: bool = False,
) -> None:
    """Prepare the corpus, train, translate the test set, score, and print a summary.

    What an earlier call finished is kept unless ``fresh``; a call that was killed is taken up again.

    Args:
        folder: everything is written below it.
        name: of the run's folder; default METHOD-seedN.
        overrides: more settings, such as ``criterion.tau=1.15``.

    Raises:
        UserError: see :meth:`Run.complete`, :func:`load_bible`, :func:`prepare` and :func:`compose`.
    """
    place = folder / f"{source}-{target}"
    data = _corpus(place / f"data-{size.verses or 'all'}", source, target, size)
    languages = (f"task.source_lang={source}", f"task.target_lang={target}", f"common.seed={seed}")
    settings = [*size.settings, *languages]
    if method == "labo" and size.warmup is not None:
        settings.append(f"criterion.smoothing_warmup_steps={size.warmup}")
    config = compose(f"bible_de-en_{method}", [*settings, *overrides])
    run = Run(place / (name or f"{method}-seed{seed}"), data, ((source, target),), config, LAST)
    summarise(run, run.complete(gpus, fresh))


def _corpus(folder: Path, source: str, target: str, size: Size) -> Prepared:
    text = f"Bible, {'all' if size.verses is None else f'first {size.verses}'} verses"
    split = f"one chapter in {_VALID} for validation, one in {_TEST} for test"
    recipe = Recipe(f"{text}, {split}", source, target, size.bpe_operations, workers=os.cpu_count() or 1)
    prepared = Prepared(folder)
    with locked(folder.parent, wait=True):
        if prepared.recipe == recipe.to_json():
            return prepared
        verses = dict(list(load_bible(cache_folder(), source, target).items())[: size.verses])
        chapters = len({verse[:2] for verse in verses})
        corpus = split_by_chapter(verses, max(1, chapters // _VALID), max(1, chapters // _TEST))
        return prepare(corpus, recipe, folder)

"""The main job: a small translator of Bible verses, from the archive to BLEU, on a laptop."""

import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from ..data.bible import load_bible, split_by_chapter
from ..data.prepare import Prepared, Recipe, prepare
from ..evaluation.curves import plot_training
from ..files import locked, read_lines
from .methods import WITH_WARMUP, method_options
from .run import Run


@dataclass(frozen=True)
class Size:
    """How much of everything; found by measurement, see the README's results."""

    verses: Optional[int]  # the first so many of the Bible; None: all
    bpe_operations: int
    updates: int
    save_interval: int
    smoothing_warmup_steps: int


FULL = Size(verses=None, bpe_operations=3000, updates=2000, save_interval=200, smoothing_warmup_steps=1000)
SMOKE = Size(verses=1500, bpe_operations=300, updates=40, save_interval=20, smoothing_warmup_steps=20)

# One chapter in so many goes to the validation and to the test set.
_VALID, _TEST = 60, 30

_TRAINING = (
    *("--arch", "transformer", "--share-all-embeddings"),
    *("--encoder-layers", "2", "--encoder-embed-dim", "128", "--encoder-ffn-embed-dim", "512"),
    *("--decoder-layers", "2", "--decoder-embed-dim", "128", "--decoder-ffn-embed-dim", "512"),
    *("--encoder-attention-heads", "4", "--decoder-attention-heads", "4"),
    *("--encoder-normalize-before", "--decoder-normalize-before", "--dropout", "0.1"),
    *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--clip-norm", "1.0", "--lr", "4e-3"),
    *("--lr-scheduler", "polynomial_decay", "--max-tokens", "2048", "--distributed-world-size", "1"),
)


def demo(
    folder: Path,
    source: str = "de",
    target: str = "en",
    method: str = "labo",
    seed: int = 1,
    size: Size = FULL,
    name: Optional[str] = None,
    extra: Sequence[str] = (),
    fresh: bool = False,
) -> None:
    """Prepare the corpus, train, translate the test set, score, and print a summary.

    What an earlier call finished is kept unless ``fresh``; a call that was killed is taken up again.

    Args:
        folder: everything is written below it.
        name: of the run's folder; default METHOD-seedN.
        extra: more options for ``fairseq-train``; they overrule the demo's own.

    Raises:
        UserError: see :meth:`Run.complete`, :func:`load_bible` and :func:`prepare`.
    """
    place = folder / f"{source}-{target}"
    data = _corpus(place / f"data-{size.verses or 'all'}", source, target, size)
    run = Run(
        folder=place / (name or f"{method}-seed{seed}"),
        data=data,
        source=source,
        target=target,
        updates=size.updates,
        save_interval=size.save_interval,
        seed=seed,
        training=(
            *_TRAINING,
            *("--warmup-updates", str(min(300, size.updates // 4)), "--total-num-update", str(size.updates)),
            *method_options(method, size.smoothing_warmup_steps),
            *extra,
        ),
    )
    result = run.complete(fresh)
    picture = run.folder / "training.png"
    warmup_ends = size.smoothing_warmup_steps if method in WITH_WARMUP else None
    if not picture.exists() and not plot_training(run.log, picture, f"{source}-{target}, {method}", warmup_ends):
        print("no picture: matplotlib is not installed (pip install 'labo-fairseq[plots]')", file=sys.stderr)
    _summarise(run, result, picture)


def cache_folder() -> Path:
    """Where downloads are kept: ``LABO_CACHE``, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labo-fairseq"
    return Path(os.environ.get("LABO_CACHE") or default)


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


def _summarise(run: Run, result: Dict[str, Any], picture: Path) -> None:
    sides = [run.data.raw("test", run.source), run.data.raw("test", run.target), run.hypotheses]
    triples = list(zip(*(list(read_lines(path)) for path in sides)))
    short = [triple for triple in triples if len(triple[0].split()) <= 20] or triples
    print("\nsource / reference / translation")
    for triple in random.Random(run.seed).sample(short, min(5, len(short))):
        print("\n  " + "\n  ".join(triple))
    print()
    for each in result["scores"]:
        print(f"{each['name']:<12}{each['value']:.2f}  ({each['signature']})")
    training = result["training"]
    if training["target_tokens_per_second"]:
        print(f"{'training':<12}{training['target_tokens_per_second']:,.0f} target tokens/s")
    print(f"{'memory':<12}{training['peak_memory_mib']:,} MiB at most in one process")
    print(f"{'run':<12}{run.folder}")
    print(f"{'translation':<12}{run.hypotheses}")
    if picture.exists():
        print(f"{'picture':<12}{picture}")
    print(f"\nTranslate your own lines:  echo 'Am Anfang war das Wort.' | bash scripts/translate.sh {run.folder}")

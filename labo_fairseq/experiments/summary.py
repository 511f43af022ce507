"""What a finished run shows: examples, scores, cost, where its files are, a figure."""

import random
import shlex
import sys
from pathlib import Path
from typing import Optional

from ..evaluation.runs import Run, TranslationEvaluation, TranslationResult
from ..files import read_lines
from ..reporting.figure import NO_FIGURE
from ..reporting.training_log import plot_training

_EXAMPLES, _SHORT = 5, 20  # how many, of at most so many words if there are any


def summarize(run: Run, result: TranslationResult) -> None:
    """Print the summary of ``run`` and draw its training curves."""
    (source, target), test = run.directions[0], run.data.tests[0]
    name = run.data.split(test, source, target)
    hypotheses = run.hypotheses(test, (source, target))
    sides = [run.data.raw(name, source), run.data.raw(name, target), hypotheses]
    triples = list(zip(*(list(read_lines(path)) for path in sides)))
    short = [triple for triple in triples if len(triple[0].split()) <= _SHORT] or triples
    print("\nsource / reference / translation")
    for triple in random.Random(1).sample(short, min(_EXAMPLES, len(short))):
        print("\n  " + "\n  ".join(triple))
    print()
    show_scores(result.evaluation)
    training = result.training
    if training.target_tokens_per_second:
        print(f"{'training':<18}{training.target_tokens_per_second:,.0f} target tokens/s")
    print(f"{'memory':<18}{training.peak_memory_mib:,} MiB at most in one process")
    print(f"{'run':<18}{run.folder}")
    print(f"{'translations':<18}{hypotheses.parent}")
    figure = draw(run)
    if figure is not None:
        print(f"{'figure':<18}{figure}")
    print(f"\nTranslate your own lines:  labo-fairseq translate {shlex.quote(str(run.folder))}")


def show_scores(evaluation: TranslationEvaluation) -> None:
    """Print every score with its signature."""
    decoding = evaluation.decoding
    for test, scores in evaluation.tests.items():
        print(f"{test}  ({evaluation.checkpoint}, beam {decoding.beam}, lenpen {decoding.lenpen:g})")
        for score in scores:
            print(f"  {score.name:<38}{score.value:.2f}  ({score.signature})")


def draw(run: Run) -> Optional[Path]:
    """Training curves as a PNG in the run's folder; None where matplotlib is not installed."""
    figure = run.folder / "training.png"
    if figure.exists():
        return figure
    from ..criterions.base import quantities  # fairseq takes seconds

    criterion = run.config["criterion"]
    if plot_training(
        run.log,
        figure,
        f"{', '.join('-'.join(direction) for direction in run.directions)}, {criterion['_name']}",
        criterion.get("smoothing_warmup_steps"),
        quantities(criterion),
    ):
        return figure
    print(NO_FIGURE, file=sys.stderr)
    return None

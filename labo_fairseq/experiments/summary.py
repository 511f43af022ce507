"""What a finished run shows: examples, scores, cost, where its files are, a picture."""

import random
import shlex
import sys
from pathlib import Path
from typing import Any, Dict, Optional

from ..files import read_lines
from ..reporting.figure import NO_FIGURE
from ..reporting.training_curves import plot_training
from .run import Run

_EXAMPLES, _SHORT = 5, 20  # how many, of at most so many words if there are any


def summarise(run: Run, result: Dict[str, Any]) -> None:
    """Print the summary of ``run`` and draw its training curves."""
    (source, target), test = run.directions[0], run.data.tests[0]
    name = run.data.split(test, source, target)
    hypotheses = run.translation(test, (source, target))
    sides = [run.data.raw(name, source), run.data.raw(name, target), hypotheses]
    triples = list(zip(*(list(read_lines(path)) for path in sides)))
    short = [triple for triple in triples if len(triple[0].split()) <= _SHORT] or triples
    print("\nsource / reference / translation")
    for triple in random.Random(1).sample(short, min(_EXAMPLES, len(short))):
        print("\n  " + "\n  ".join(triple))
    print()
    show_scores(result["evaluation"])
    training = result["training"]
    if training["target_tokens_per_second"]:
        print(f"{'training':<18}{training['target_tokens_per_second']:,.0f} target tokens/s")
    print(f"{'memory':<18}{training['peak_memory_mib']:,} MiB at most in one process")
    print(f"{'run':<18}{run.folder}")
    print(f"{'translations':<18}{hypotheses.parent}")
    picture = draw(run)
    if picture is not None:
        print(f"{'picture':<18}{picture}")
    print(f"\nTranslate your own lines:  bash scripts/translate.sh {shlex.quote(str(run.folder))}")


def show_scores(evaluation: Dict[str, Any]) -> None:
    """Print every score of :func:`labo_fairseq.experiments.run.evaluate` with its signature."""
    for test, scores in evaluation["tests"].items():
        print(f"{test}  ({evaluation['checkpoint']}, beam {evaluation['beam']}, lenpen {evaluation['lenpen']:g})")
        for each in scores:
            print(f"  {each['name']:<38}{each['value']:.2f}  ({each['signature']})")


def draw(run: Run) -> Optional[Path]:
    """Training curves as a PNG in the run's folder; None where matplotlib is not installed."""
    picture = run.folder / "training.png"
    if picture.exists():
        return picture
    criterion = run.config["criterion"]
    if plot_training(
        run.log,
        picture,
        f"{', '.join('-'.join(direction) for direction in run.directions)}, {criterion['_name']}",
        criterion.get("smoothing_warmup_steps"),
    ):
        return picture
    print(NO_FIGURE, file=sys.stderr)
    return None

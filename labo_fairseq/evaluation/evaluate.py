"""A checkpoint of a run translates the test sets and is scored."""

from dataclasses import replace
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from ..checkpoints import average_checkpoints, load_checkpoint, newest_checkpoints
from ..data.extra_test_set import NewTest, prepare_test
from ..data.prepared_corpus import Prepared
from ..errors import UserError
from ..files import locked, write_json
from .generate import Decoding, TestSet, translate_tests
from .metrics import Metric, Score, default_metrics, find_metric, score
from .runs import Run, TranslationEvaluation, read_json, read_translation
from .significance import DEFAULT, SAMPLES, Compared, compare, refuse_single


def evaluate(run: Run, checkpoint: Path, decoding: Decoding, folder: Path) -> TranslationEvaluation:
    """The default scores of ``checkpoint`` on every test set in every direction; ``folder`` keeps the translations."""
    sets = [
        TestSet(test, direction, folder / f"{run.data.split(test, *direction)}.{direction[1]}")
        for direction in run.directions
        for test in run.data.tests
    ]
    translate_tests(run.data, checkpoint, sets, decoding)
    tests: Dict[str, List[Score]] = {}
    for one in sets:
        scoring = run.data.scoring_for(one.direction[1])
        metrics = default_metrics(scoring, tokens=not run.data.uses_sentencepiece)
        translation = read_translation(run.data, one.name, one.direction, one.output)
        name = run.data.split(one.name, *one.direction)
        tests[name] = [score(metric, translation, scoring) for metric in metrics]
    return TranslationEvaluation(checkpoint.name, tests, decoding)


def find_checkpoint(run: Run, name: Optional[str], average: Optional[int]) -> Path:
    """A checkpoint of a finished run: ``"best"`` or ``"last"``, None for the one that it has scored.

    Args:
        average: of so many newest checkpoints instead.

    Raises:
        UserError: it is not there or damaged.
    """
    checkpoint = run.checkpoints / f"checkpoint_{name or run.checkpoint_name}.pt"
    if average is not None:
        checkpoint = run.checkpoints / f"checkpoint_average{average}.pt"
        if not checkpoint.exists():
            newest = newest_checkpoints(run.checkpoints, average)
            with locked(run.checkpoints, wait=True):  # translations need no lock, one file for two of them does
                average_checkpoints(newest, checkpoint)
    if not checkpoint.exists():
        raise UserError(f"{checkpoint} is not there")
    load_checkpoint(checkpoint)  # says in one line what fairseq would say in fifty
    return checkpoint


def evaluate_again(
    run: Run,
    checkpoint_name: Optional[str],
    average: Optional[int],
    decoding: Decoding,
    metrics: Sequence[str] = (),
    test: Optional[NewTest] = None,
) -> TranslationEvaluation:
    """Scores of a finished run with another checkpoint, search, metric or test set, kept beside the first ones.

    Args:
        checkpoint_name, average: see :func:`find_checkpoint`.
        metrics: keys or names of the registry, of metrics to add to the default ones.
        test: instead of the test sets of the corpus.

    Raises:
        UserError: that checkpoint is not there or damaged, fairseq fails, a metric cannot be computed, or see
            :func:`prepare_test`.
    """
    return _evaluate_again(run, checkpoint_name, average, decoding, metrics, test)[0]


def _evaluate_again(
    run: Run,
    checkpoint_name: Optional[str],
    average: Optional[int],
    decoding: Decoding,
    metrics: Sequence[str],
    test: Optional[NewTest],
) -> Tuple[TranslationEvaluation, Prepared, Path]:
    """Also the corpus that was translated, and the folder of the translations."""
    wanted = [find_metric(key, run.data.scoring_for(run.directions[0][1])) for key in metrics]
    with locked(run.folder):
        checkpoint = find_checkpoint(run, checkpoint_name, average)
        folder = run.folder / "evaluations" / f"{checkpoint.stem.partition('_')[2]}-{decoding.folder_name}"
        if test is not None:
            data = prepare_test(run.data, test, folder.parent / "tests")
            run, folder = replace(run, data=data, directions=(test.direction,)), folder / data.folder.name
        path = folder / "scores.json"
        if not path.exists():
            write_json(path, evaluate(run, checkpoint, decoding, folder).to_json())
        evaluation = TranslationEvaluation.from_json(read_json(path))
        if _add_scores(run, evaluation, folder, wanted):
            write_json(path, evaluation.to_json())
        return evaluation, run.data, folder


def compare_on_new_test(
    runs: Sequence[Run], test: NewTest, metrics: Sequence[str] = (), samples: int = SAMPLES
) -> List[Compared]:
    """Scores of finished runs on another test set, tested against the first of them; see :func:`compare_runs`.

    Each translates with the checkpoint that it has scored; they may have been trained on different data.

    Raises:
        UserError: fewer than two runs, one that has not the direction of the test set, or see :func:`evaluate_again`.
    """
    refuse_single(runs)
    systems = {}
    for run in runs:
        if test.direction not in run.directions:
            raise UserError(f"{run.folder} does not translate {'-'.join(test.direction)}")
        _, data, folder = _evaluate_again(run, None, None, Decoding(), (), test)
        output = f"{data.split(test.name, *test.direction)}.{test.direction[1]}"
        systems[str(run.folder)] = read_translation(data, test.name, test.direction, folder / output)
    scoring = runs[0].data.scoring_for(test.direction[1])
    return compare([find_metric(key, scoring) for key in metrics or DEFAULT], systems, scoring, samples)


def _add_scores(run: Run, evaluation: TranslationEvaluation, folder: Path, metrics: Sequence[Metric]) -> bool:
    """Add the scores that ``evaluation`` lacks, of the translations in ``folder``; whether it lacked any."""
    added = False
    for direction in run.directions:
        scoring = run.data.scoring_for(direction[1])
        for test in run.data.tests:
            name = run.data.split(test, *direction)
            scores = evaluation.tests[name]
            missing = [metric for metric in metrics if metric.name(scoring) not in [one.name for one in scores]]
            if missing:
                translation = read_translation(run.data, test, direction, folder / f"{name}.{direction[1]}")
                scores += [score(metric, translation, scoring) for metric in missing]
                added = True
    return added

"""Finished runs side by side on the same test set."""

from typing import List, Optional, Sequence

from ..errors import UserError
from ..evaluation.significance import Compared, compare
from ..files import read_lines
from .run import Run


def compare_runs(runs: Sequence[Run], test: Optional[str] = None, samples: int = 1000) -> List[Compared]:
    """BLEU and chrF of ``runs`` with paired bootstrap against the first of them.

    Args:
        test: name of the test set's files; None: the main one.
        samples: of the bootstrap.

    Raises:
        UserError: fewer than two runs, a test set that is not theirs, or runs on different data.
    """
    if len(runs) < 2:
        raise UserError("a comparison needs at least two runs")
    first = runs[0]
    names = {
        first.data.split(each, *direction): (each, direction)
        for direction in first.directions
        for each in first.data.tests
    }
    name = test or next(iter(names))
    if name not in names:
        raise UserError(f"{first.folder} has no test set {name!r}: choose from {', '.join(names)}")
    refuse_unlike(runs)
    each, direction = names[name]
    references = list(read_lines(first.data.raw(name, direction[1])))
    systems = {str(run.folder): list(read_lines(run.translation(each, direction))) for run in runs}
    return compare(systems, references, first.data.scoring.lowercase, samples)


def refuse_unlike(runs: Sequence[Run]) -> None:
    """UserError where ``runs`` were trained on different data or in different directions."""
    first = runs[0]
    for run in runs[1:]:
        if run.data.recipe != first.data.recipe or run.directions != first.directions:
            raise UserError(
                f"{run.folder} and {first.folder} were trained on different data or in different directions"
            )

"""Best hypotheses of runs on their validation and test sets, as text and as probabilities."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Sequence

import numpy as np

from ..checkpoints import load_checkpoint
from ..data.types import Pair
from ..errors import UserError
from ..evaluation.generate import Decoding, chosen_probabilities, generation_log, translate_test
from ..experiments.comparison import refuse_unlike
from ..experiments.run import Run
from ..files import read_lines
from .teacher_forcing import checkpoint_of

VALID = "valid"


@dataclass(frozen=True)
class HeldOut:
    """The validation set or a test set, in one direction."""

    split: str
    direction: Pair
    name: str  # of its files


@dataclass(frozen=True)
class Decoded:
    """What a run makes of a test set with beam 5."""

    lines: List[str]  # detokenised, one a sentence
    probabilities: List[np.ndarray]  # of the chosen tokens of each sentence


def held_out(run: Run) -> List[HeldOut]:
    """In every direction the validation set, then the test sets."""
    splits = (VALID, *run.data.tests)
    return [
        HeldOut(split, (source, target), run.data.split(split, source, target))
        for source, target in run.directions
        for split in splits
    ]


def runs_by_name(runs: Sequence[Run]) -> Dict[str, Run]:
    """``runs`` by the names of their folders, or by their paths where these are the same.

    Raises:
        UserError: a run is there twice, or they were trained on different data.
    """
    refuse_unlike(runs)
    paths = [run.folder.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise UserError("a run is named twice")
    short = [path.name for path in paths]
    return dict(zip(short if len(set(short)) == len(short) else map(str, paths), runs))


def decode(run: Run, test: HeldOut, cache: Path) -> Decoded:
    """The run's own translations where it has them, else translations that are kept in ``cache``.

    Raises:
        UserError: fairseq fails.
    """
    sentences = sum(1 for _ in read_lines(run.data.raw(test.name, test.direction[1])))
    output = run.translation(test.split, test.direction)
    if not _whole(output, sentences):
        output = cache / _identity(run) / output.name
        if output.exists() and not _whole(output, sentences):
            output.unlink()
        load_checkpoint(checkpoint_of(run))  # says in one line what fairseq would say in fifty
        translate_test(run.data, checkpoint_of(run), *test.direction, test.split, Decoding(), output)
    found = chosen_probabilities(generation_log(output))
    return Decoded(list(read_lines(output)), [found[number] for number in range(sentences)])


def _whole(output: Path, sentences: int) -> bool:
    """Whether translations are there, and the log that holds their probabilities."""
    log = generation_log(output)
    return output.exists() and log.exists() and sorted(chosen_probabilities(log)) == list(range(sentences))


def _identity(run: Run) -> str:
    """A name for the run's model: another training in the same folder must not find the translations of this one."""
    checkpoint = checkpoint_of(run)
    facts = (str(checkpoint.resolve()), checkpoint.stat().st_mtime_ns, str(run.data.folder.resolve()))
    return f"{run.folder.resolve().name}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"

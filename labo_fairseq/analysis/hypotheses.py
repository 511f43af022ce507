"""Best hypotheses of runs on their validation and test sets, as text, as subwords and as probabilities."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import numpy as np

from ..checkpoints import load_checkpoint
from ..data.types import Pair
from ..evaluation.generate import Decoding, TestSet, generation_log, translate_tests
from ..evaluation.runs import Run
from ..files import read_lines

VALID = "valid"
TRANSLATIONS = "translations"  # where analyses keep those that a run does not have


@dataclass(frozen=True)
class HeldOut:
    """The validation set or a test set, in one direction."""

    split: str
    direction: Pair
    name: str  # of its files


@dataclass(frozen=True)
class Hypotheses:
    """What a run makes of a test set with beam 5, one entry per sentence."""

    lines: List[str]  # detokenized
    subwords: List[str]
    probabilities: List[np.ndarray]  # (tokens,) of the hypothesis tokens, the last one ``</s>``


def held_out(run: Run) -> List[HeldOut]:
    """In every direction the validation set, then the test sets; a corpus may score the former as one of the latter."""
    return [
        HeldOut(split, direction, run.data.split(split, *direction))
        for direction in run.directions
        for split in (VALID, *run.data.tests)
        if split == VALID or not run.is_validation(split, direction)
    ]


def decode(run: Run, tests: Sequence[HeldOut], cache: Path) -> Dict[HeldOut, Hypotheses]:
    """The run's own translations where it has them, else translations that are kept in ``cache``.

    Raises:
        UserError: fairseq fails.
    """
    outputs: Dict[HeldOut, Path] = {}
    missing: List[TestSet] = []
    for test in tests:
        output = run.hypotheses(test.split, test.direction)
        if not _is_complete(run, test, output):
            output = cache / model_identity(run) / output.name
            if not _is_complete(run, test, output):
                with suppress(FileNotFoundError):
                    output.unlink()
                missing.append(TestSet(test.split, test.direction, output))
        outputs[test] = output
    if missing:
        checkpoint = run.existing_checkpoint()
        load_checkpoint(checkpoint)  # says in one line what fairseq would say in fifty
        translate_tests(run.data, checkpoint, missing, Decoding())
    return {test: _read(output) for test, output in outputs.items()}


def _read(output: Path) -> Hypotheses:
    subwords, probabilities = read_generation(generation_log(output))
    order = range(len(subwords))
    return Hypotheses(
        list(read_lines(output)), [subwords[index] for index in order], [probabilities[index] for index in order]
    )


def read_generation(log: Path) -> Tuple[Dict[int, str], Dict[int, np.ndarray]]:
    """Sentence → subwords of its best hypothesis; sentence → probabilities (tokens,) that the model gave them.

    Args:
        log: of ``fairseq-generate``, whose ``P-`` lines hold logarithms in base 2 with four decimals.
    """
    subwords, probabilities = {}, {}
    for line in read_lines(log):
        if line.startswith(("H-", "P-")):
            number, _, values = line[2:].partition("\t")
            if line[0] == "H":
                subwords[int(number)] = values.partition("\t")[2]
            else:
                probabilities[int(number)] = np.exp2(np.array(values.split(), dtype=np.float64))
    return subwords, probabilities


def model_identity(run: Run) -> str:
    """A name for the run's model: another training in the same folder must not find the translations of this one."""
    checkpoint = run.existing_checkpoint()
    traits = (str(checkpoint.resolve()), checkpoint.stat().st_mtime_ns, str(run.data.folder.resolve()))
    return f"{run.folder.resolve().name}-{hashlib.sha256(repr(traits).encode()).hexdigest()[:8]}"


def _is_complete(run: Run, test: HeldOut, output: Path) -> bool:
    """Whether translations are there, and the log that holds their probabilities."""
    log = generation_log(output)
    if not (output.exists() and log.exists()):
        return False
    sentences = sum(1 for _ in read_lines(run.data.raw(test.name, test.direction[1])))
    return sorted(read_generation(log)[1]) == list(range(sentences))

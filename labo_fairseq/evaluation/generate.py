"""Translations of test sets by ``fairseq-generate``."""

import json
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Dict, Iterable, List, Sequence, Tuple

from tqdm import tqdm

from ..data.moses import detokenize
from ..data.prepared_corpus import Prepared
from ..data.types import Pair
from ..errors import UserError
from ..files import atomic_write, make_folder, read_lines, write_lines
from ..subprocesses import USER_DIR, module_output

_END = "labo_fairseq: end of a test set"


@dataclass(frozen=True)
class Decoding:
    """How to search; the defaults are the paper's."""

    beam: int = 5
    lenpen: float = 1.0
    posterior: bool = False  # calibrated probabilities in place of the predictions

    def options(self) -> Tuple[str, ...]:
        """For ``fairseq-generate``."""
        search = ("--beam", str(self.beam), "--lenpen", str(self.lenpen))
        return (*search, "--posterior") if self.posterior else search

    @property
    def folder_name(self) -> str:
        """Tells this search from others in the name of a folder."""
        return f"beam{self.beam}-lenpen{self.lenpen:g}{'-posterior' if self.posterior else ''}"

    def to_json(self) -> Dict[str, Any]:
        values = asdict(self)
        if not self.posterior:
            del values["posterior"]  # which the results of earlier versions do not have
        return values

    @classmethod
    def from_json(cls, value: Dict[str, Any]) -> "Decoding":
        """Out of an object that holds other values too."""
        return cls(value["beam"], value["lenpen"], value.get("posterior", False))


def decoding_options(data: Prepared, checkpoint: Path, source: str, target: str, decoding: Decoding) -> List[str]:
    """Options that ``fairseq-generate`` and ``fairseq-interactive`` share; their ``D-`` lines are :func:`finish` ed."""
    options = [
        *(str(data.binarized), "--user-dir", USER_DIR, "--path", str(checkpoint)),
        *("--source-lang", source, "--target-lang", target, *decoding.options()),
    ]
    units = ("--bpe", "subword_nmt", "--bpe-codes", str(data.codes))
    if data.uses_sentencepiece:
        units = ("--bpe", "sentencepiece", "--sentencepiece-model", str(data.sentencepiece))
    if data.multilingual:
        directions = data.recipe["directions"]
        languages = sorted({language for direction in directions for language in direction})
        return [
            *(*options, "--task", "translation_multi_simple_epoch", "--encoder-langtok", data.language_token),
            *("--lang-pairs", ",".join(map("-".join, directions)), "--langs", ",".join(languages)),
            *units,
        ]
    return [*options, "--task", "translation", *units]


def finish(data: Prepared, language: str, lines: List[str]) -> List[str]:
    """Text of translations without their subwords: Moses' tokens joined, unless it was never tokenized."""
    return lines if data.uses_sentencepiece else detokenize(language, lines)


def tokens_of(output: Path) -> Path:
    """The translations ``output`` before they were detokenized."""
    return output.with_name(f"{output.stem}.tok{output.suffix}")


def generation_log(output: Path) -> Path:
    """What ``fairseq-generate`` printed when it made the translations ``output``."""
    return output.with_suffix(".log")


@dataclass(frozen=True)
class TestSet:
    """What to translate: a test set, or "valid", in one direction; and where the translations go."""

    name: str
    direction: Pair
    output: Path

    @property
    def translated(self) -> bool:
        """Whether that is done."""
        return self.output.exists() and tokens_of(self.output).exists()


def translate_tests(data: Prepared, checkpoint: Path, tests: Sequence[TestSet], decoding: Decoding) -> None:
    """Translate into each ``output``, a detokenized line per sentence, and :func:`tokens_of` it, in one process.

    Both are complete or absent; what is there already is not made again.

    Raises:
        UserError: fairseq fails, or leaves a sentence out.
    """
    missing = [test for test in tests if not test.translated]
    if not missing:
        return
    commands = [generate_options(data, checkpoint, test, decoding) for test in missing]
    log = generation_log(missing[0].output)
    arguments = [json.dumps(commands), _END]
    with closing(
        module_output("fairseq-generate", "labo_fairseq.generation_worker", arguments, lambda: log)
    ) as printed:
        for test in missing:
            log = generation_log(test.output)
            make_folder(log.parent)
            _keep(data, test, takewhile(lambda line: line != _END, printed), log)
        for _ in printed:  # how it ended comes after its last line
            pass


def generate_options(data: Prepared, checkpoint: Path, test: TestSet, decoding: Decoding) -> List[str]:
    """Arguments of ``fairseq-generate``."""
    # fairseq-fixed leaves out the last batch, sentences of a test set included, unless it fills a multiple
    # a worker that reads ahead would outlive its test set, and the next one would wait five seconds for its end
    batches = ("--max-tokens", "4096", "--required-batch-size-multiple", "1", "--num-workers", "0")
    options = decoding_options(data, checkpoint, *test.direction, decoding)
    return [*options, "--gen-subset", data.subset(test.name), *batches]


def _keep(data: Prepared, test: TestSet, printed: Iterable[str], log: Path) -> None:
    """Write down the translations that fairseq-generate prints, and in ``log`` all that it prints."""
    target = test.direction[1]
    lines = sum(1 for _ in read_lines(data.raw(data.split(test.name, *test.direction), target)))
    hypotheses: Dict[int, str] = {}
    with tqdm(total=lines, desc=f"translate {test.name}", unit=" sentences") as bar, open(
        log, "w", encoding="utf-8", newline="\n"
    ) as file:
        for line in printed:
            file.write(line + "\n")
            file.flush()
            if line.startswith("D-"):
                number, _, text = line[2:].split("\t", 2)
                hypotheses[int(number)] = text
                bar.update()
    if len(hypotheses) != lines:
        raise UserError(f"fairseq-generate translated {len(hypotheses)} of {lines} lines of {test.name}; see {log}")
    translations = [hypotheses[number] for number in range(lines)]
    with atomic_write(tokens_of(test.output)) as part:
        write_lines(part, translations)
    with atomic_write(test.output) as part:
        write_lines(part, finish(data, target, translations))

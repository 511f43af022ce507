"""Translations of a test set by ``fairseq-generate``."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Tuple

from tqdm import tqdm

from ..data.moses import detokenize
from ..data.prepared_corpus import Prepared
from ..errors import UserError
from ..files import atomic_write, read_lines, write_lines
from ..subprocesses import USER_DIR, run_fairseq


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


def translate_test(
    data: Prepared, checkpoint: Path, source: str, target: str, test: str, decoding: Decoding, output: Path
) -> None:
    """Translate a test set, or "valid", into ``output``, a detokenized line per sentence, and :func:`tokens_of` it.

    Both are complete or absent; what is there already is not made again.

    Raises:
        UserError: fairseq fails, or leaves a sentence out.
    """
    tokens = tokens_of(output)
    if output.exists() and tokens.exists():
        return
    lines = sum(1 for _ in read_lines(data.raw(data.split(test, source, target), target)))
    hypotheses: Dict[int, str] = {}
    log = generation_log(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.unlink()
    with tqdm(total=lines, desc=f"translate {test}", unit=" sentences") as bar:

        def watch(line: str) -> None:
            if line.startswith("D-"):
                number, _, text = line[2:].split("\t", 2)
                hypotheses[int(number)] = text
                bar.update()

        # fairseq-fixed leaves out the last batch, sentences of a test set included, unless it fills a multiple
        batches = ("--max-tokens", "4096", "--required-batch-size-multiple", "1")
        options = decoding_options(data, checkpoint, source, target, decoding)
        run_fairseq("generate", [*options, "--gen-subset", data.subset(test), *batches], log, watch)
    if len(hypotheses) != lines:
        raise UserError(f"fairseq-generate translated {len(hypotheses)} of {lines} lines of {test}; see {log}")
    translations = [hypotheses[number] for number in range(lines)]
    with atomic_write(tokens) as part:
        write_lines(part, translations)
    with atomic_write(output) as part:
        write_lines(part, finish(data, target, translations))

"""From raw sentence pairs to what ``fairseq-train`` reads: tokenised, in joint BPE, binarised."""

import json
import sys
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Dict, List

from sacremoses import MosesTokenizer
from subword_nmt.apply_bpe import BPE
from subword_nmt.learn_bpe import learn_bpe
from tqdm import tqdm

from ..commands import run_fairseq
from ..errors import UserError
from ..files import read_lines, whole_folder, write_json, write_lines
from .corpus import Corpus

_CHUNK = 256  # lines that a worker process gets at a time


@dataclass(frozen=True)
class Recipe:
    """How a corpus is prepared; equal recipes give equal files."""

    corpus: str  # which text, and how it was split
    source: str
    target: str
    bpe_operations: int
    workers: int = 1  # processes; of no influence on the files

    def to_json(self) -> Dict[str, Any]:
        """What tells this recipe from another."""
        return {name: value for name, value in asdict(self).items() if name != "workers"}


@dataclass(frozen=True)
class Prepared:
    """A prepared corpus on disk."""

    folder: Path

    @property
    def recipe(self) -> Dict[str, Any]:
        """What :meth:`Recipe.to_json` gave when this was prepared; empty where nothing was."""
        path = self.folder / "recipe.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    @property
    def codes(self) -> Path:
        """BPE merge operations, for ``--bpe subword_nmt --bpe-codes``."""
        return self.folder / "codes"

    @property
    def binarised(self) -> Path:
        """What ``fairseq-train`` takes as DATA."""
        return self.folder / "bin"

    def raw(self, split: str, language: str) -> Path:
        """Untouched text, one sentence a line: what BLEU is scored against."""
        return self.folder / "raw" / f"{split}.{language}"

    def subwords(self, split: str, language: str) -> Path:
        """The same lines, tokenised and in BPE."""
        return self.folder / "bpe" / f"{split}.{language}"


def prepare(corpus: Corpus, recipe: Recipe, folder: Path) -> Prepared:
    """Prepare ``corpus`` in ``folder``, which is whole when this returns and not there if it does not.

    Raises:
        UserError: an empty split, or ``fairseq-preprocess`` fails.
    """
    for split, pairs in corpus.items():
        if not pairs:
            raise UserError(f"the {split} set is empty: the corpus is too small for the split that was asked for")
    with whole_folder(folder) as work:
        files = Prepared(work)
        tokenised = work / "tok"
        for subfolder in (work / "raw", work / "bpe", tokenised):
            subfolder.mkdir()
        for split, pairs in corpus.items():
            for side, language in enumerate((recipe.source, recipe.target)):
                lines = [pair[side] for pair in pairs]
                write_lines(files.raw(split, language), lines)
                done = _map(partial(tokenise, language), lines, recipe.workers, f"tokenise {split}.{language}")
                write_lines(tokenised / f"{split}.{language}", done)
        learn_joint_bpe(
            [tokenised / f"train.{language}" for language in (recipe.source, recipe.target)],
            files.codes,
            recipe.bpe_operations,
        )
        for split in corpus:
            for language in (recipe.source, recipe.target):
                lines = list(read_lines(tokenised / f"{split}.{language}"))
                done = _map(Subwords(files.codes), lines, recipe.workers, f"BPE {split}.{language}")
                write_lines(files.subwords(split, language), done)
        binarise(files, recipe)
        write_json(work / "recipe.json", recipe.to_json())
    return Prepared(folder)


def tokenise(language: str, lines: List[str]) -> List[str]:
    """Moses tokens, as ``fairseq-interactive --tokenizer moses --moses-no-escape`` makes them."""
    tokenizer = MosesTokenizer(language)
    return [tokenizer.tokenize(line, aggressive_dash_splits=True, return_str=True, escape=False) for line in lines]


class Subwords:
    """Splits tokens into subwords; a process reads the codes once, when it first needs them."""

    def __init__(self, codes: Path) -> None:
        self.codes = codes
        self._bpe = None

    def __call__(self, lines: List[str]) -> List[str]:
        if self._bpe is None:
            with open(self.codes, encoding="utf-8") as file:
                self._bpe = BPE(file)
        return [self._bpe.process_line(line) for line in lines]


def learn_joint_bpe(texts: List[Path], codes: Path, operations: int) -> None:
    """Merge operations learnt on all ``texts`` together (Sennrich et al., 2016)."""
    lines = (line for text in texts for line in read_lines(text))
    print(f"learning {operations} BPE operations", file=sys.stderr)
    with open(codes, "w", encoding="utf-8", newline="\n") as file:
        learn_bpe(lines, file, operations)


def binarise(files: Prepared, recipe: Recipe) -> None:
    """``fairseq-preprocess`` with one dictionary for both languages; its output is kept in a log."""
    pairs = ((split, files.folder / "bpe" / split) for split in ("train", "valid", "test"))
    arguments = [
        *("--source-lang", recipe.source, "--target-lang", recipe.target, "--joined-dictionary"),
        *(f"--{split}pref={prefix}" for split, prefix in pairs),
        *("--destdir", str(files.binarised), "--workers", str(recipe.workers)),
    ]
    run_fairseq("preprocess", arguments, files.folder / "preprocess.log")


def _map(function, lines: List[str], workers: int, what: str) -> List[str]:
    """``function`` over ``lines`` in chunks, in order, on ``workers`` processes, with a progress bar."""
    chunks = [lines[start : start + _CHUNK] for start in range(0, len(lines), _CHUNK)]
    results: List[str] = []
    with get_context("spawn").Pool(workers) as pool, tqdm(total=len(lines), desc=what, unit=" lines") as bar:
        for done in pool.imap(function, chunks):
            results.extend(done)
            bar.update(len(done))
    return results

"""A prepared corpus on disk: where each of its files lies."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..errors import UserError
from ..files import digest_of, shipped_corpora, write_json
from .corpora.declaration import load_declaration
from .languages import language_token
from .types import DeclaredScoring, Scoring

#: everything that a preparation leaves behind; what else lies in its folder is the user's own
_MADE = (
    *("prepared.json", "preprocess.log", "codes", "sentencepiece.model", "sentencepiece.vocab", "dict.txt"),
    *("raw", "raw/*", "tok", "tok/*", "bpe", "bpe/*"),
    *("bin", "bin/dict.*.txt", "bin/*.bin", "bin/*.idx", "bin/preprocess.log"),
)
#: of these, what text and models must share
_SHARED = ("codes", "sentencepiece.model", "bin/dict.*.txt")


@dataclass(frozen=True)
class Prepared:
    """What :func:`labo_fairseq.data.preprocess.prepare` and its multilingual sibling leave behind."""

    folder: Path

    @property
    def metadata(self) -> Path:
        """JSON: the recipe, the number of pairs in each split, the test sets in fairseq's order, digests of files."""
        return self.folder / "prepared.json"

    @property
    def recipe(self) -> Dict[str, Any]:
        """What tells this preparation from another; empty where nothing was prepared."""
        return self._metadata("recipe", {})

    def scoring_for(self, target: str) -> Scoring:
        """How translations into ``target`` are scored."""
        return self.scoring.for_target(target)

    @property
    def scoring(self) -> DeclaredScoring:
        """How translations are scored; what an older version did not write down, the corpus' declaration still says."""
        written = self._metadata("scoring", None)
        if written is not None:
            return DeclaredScoring(**written)
        corpus = str(self.recipe.get("corpus", "")).partition(",")[0]
        if corpus in shipped_corpora():
            return load_declaration(corpus).scoring
        return DeclaredScoring(lowercase=bool(self.recipe.get("lowercase")))

    @property
    def pairs(self) -> Dict[str, int]:
        """Split → number of sentence pairs."""
        return self._metadata("pairs", {})

    @property
    def tests(self) -> List[str]:
        """Names of the test sets, the main one first."""
        return self._metadata("tests", [])

    def split(self, name: str, source: str, target: str) -> str:
        """How the files of a split are named: with the direction where the corpus has several."""
        return f"{name}.{source}-{target}" if self.multilingual else name

    @property
    def multilingual(self) -> bool:
        """Whether several directions were prepared for one model."""
        return "directions" in self.recipe

    @property
    def language_token(self) -> str:
        """Of which language a token stands before every source sentence of a multilingual corpus: "src", or "tgt"."""
        return language_token([(source, target) for source, target in self.recipe["directions"]])

    @property
    def uses_sentencepiece(self) -> bool:
        """Whether text is in SentencePiece units of raw text; else it is in BPE of Moses tokens."""
        return self.sentencepiece.exists()

    @property
    def sentencepiece(self) -> Path:
        """Model of raw text, for ``--bpe sentencepiece --sentencepiece-model``."""
        return self.folder / "sentencepiece.model"

    @property
    def codes(self) -> Path:
        """BPE merge operations, for ``--bpe subword_nmt --bpe-codes``."""
        return self.folder / "codes"

    @property
    def binarized(self) -> Path:
        """What ``fairseq-train`` takes as DATA."""
        return self.folder / "bin"

    def subset(self, split: str) -> str:
        """fairseq's name of the validation set or of a test set, for ``--gen-subset``."""
        if split == "valid":
            return split
        number = self.tests.index(split)
        return f"test{number}" if number else "test"

    def raw(self, split: str, language: str) -> Path:
        """Untouched text, one sentence per line: what BLEU is scored against."""
        return self.folder / "raw" / f"{split}.{language}"

    def tokens(self, split: str, language: str) -> Path:
        """The same lines as Moses tokens, lower-cased where the recipe says so."""
        return self.folder / "tok" / f"{split}.{language}"

    def subwords(self, split: str, language: str) -> Path:
        """The same lines in BPE, or in SentencePiece units."""
        return self.folder / "bpe" / f"{split}.{language}"

    @property
    def digests(self) -> Dict[str, str]:
        """Path in the folder → SHA-256 of each file that text and models must share, as it was prepared.

        Empty where the version that prepared the corpus wrote none down.
        """
        return self._metadata("sha256", {})

    def write_metadata(
        self, recipe: Dict[str, Any], pairs: Dict[str, int], tests: List[str], scoring: DeclaredScoring
    ) -> None:
        """Write :attr:`metadata`, the last file of a preparation."""
        paths = sorted(path for pattern in _SHARED for path in self.folder.glob(pattern))
        digests = {path.relative_to(self.folder).as_posix(): digest_of(path) for path in paths}
        content = {"recipe": recipe, "pairs": pairs, "tests": tests, "sha256": digests, "scoring": asdict(scoring)}
        write_json(self.metadata, content)

    def check(self, recipe: Dict[str, Any], digests: Optional[Dict[str, str]] = None) -> None:
        """See that a corpus is still what it was.

        Args:
            digests: what a model was trained with, see :attr:`digests`; None or empty: what was prepared here.

        Raises:
            UserError: another ``recipe`` was prepared here, or BPE codes, units or dictionaries are gone or others.
        """
        if self.recipe != recipe:
            what = "data from another corpus or other settings" if self.recipe else "no prepared corpus"
            raise UserError(
                f"{self.folder} holds {what}: restore the data this run was trained on, or make it again with "
                "'labo-fairseq prepare'"
            )
        for name, digest in (digests or self.digests).items():
            path = self.folder / name
            if not path.is_file() or digest_of(path) != digest:
                state = "is of another corpus" if path.is_file() else "is gone"
                raise UserError(f"{path} {state}: put it back, or delete {self.folder} and prepare the corpus again")

    def check_replaceable(self) -> None:
        """UserError where preparing in this folder would delete something that no preparation made."""
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file: name another folder")
        if not self.folder.exists():
            return
        # without a recipe nothing was prepared here, and all is the user's: perhaps a disk of files
        paths = self.folder.rglob("*") if self.recipe else self.folder.iterdir()
        for path in paths:
            if not (self.recipe and _made(path.relative_to(self.folder))):
                raise UserError(f"{self.folder} holds {path.name}, which no preparation made: name another folder")

    def _metadata(self, name: str, default: Any) -> Any:
        if not self.metadata.is_file():
            return default
        try:
            return json.loads(self.metadata.read_text(encoding="utf-8")).get(name, default)
        except (ValueError, AttributeError):
            raise UserError(f"{self.metadata} is damaged: prepare the corpus again, in another folder") from None


def find_prepared(folder: Path) -> Prepared:
    """The prepared corpus in ``folder``, or the one whose ``bin`` it is.

    Raises:
        UserError: there is none.
    """
    above = Prepared(folder.resolve().parent)
    prepared = above if above.binarized == folder.resolve() and above.metadata.is_file() else Prepared(folder)
    if prepared.metadata.is_file():
        return prepared
    raise UserError(f"{folder} holds no prepared corpus: make it with 'labo-fairseq prepare'")


def _made(path: Path) -> bool:
    """Whether ``path``, relative to the folder, is in :data:`_MADE`."""
    return any(path.match(pattern) and len(path.parts) == pattern.count("/") + 1 for pattern in _MADE)

"""A prepared corpus on disk: where each of its files lies."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List


@dataclass(frozen=True)
class Prepared:
    """What :func:`labo_fairseq.data.prepare.prepare` and its multilingual sibling leave behind."""

    folder: Path

    @property
    def facts(self) -> Path:
        """JSON: the recipe, the number of pairs in each split, the test sets in fairseq's order."""
        return self.folder / "prepared.json"

    @property
    def recipe(self) -> Dict[str, Any]:
        """What tells this preparation from another; empty where nothing was prepared."""
        return self._fact("recipe", {})

    @property
    def pairs(self) -> Dict[str, int]:
        """Split → number of sentence pairs."""
        return self._fact("pairs", {})

    @property
    def tests(self) -> List[str]:
        """Names of the test sets, the main one first."""
        return self._fact("tests", [])

    def split(self, name: str, source: str, target: str) -> str:
        """How the files of a split are named: with the direction where the corpus has several."""
        return f"{name}.{source}-{target}" if self.multilingual else name

    @property
    def multilingual(self) -> bool:
        """Whether there are several directions, in SentencePiece units of raw text."""
        return self.sentencepiece.exists()

    @property
    def sentencepiece(self) -> Path:
        """Model of a multilingual corpus, for ``--bpe sentencepiece --sentencepiece-model``."""
        return self.folder / "sentencepiece.model"

    @property
    def codes(self) -> Path:
        """BPE merge operations, for ``--bpe subword_nmt --bpe-codes``."""
        return self.folder / "codes"

    @property
    def binarised(self) -> Path:
        """What ``fairseq-train`` takes as DATA."""
        return self.folder / "bin"

    def subset(self, split: str) -> str:
        """fairseq's name of the validation set or of a test set, for ``--gen-subset``."""
        if split == "valid":
            return split
        number = self.tests.index(split)
        return f"test{number}" if number else "test"

    def raw(self, split: str, language: str) -> Path:
        """Untouched text, one sentence a line: what BLEU is scored against."""
        return self.folder / "raw" / f"{split}.{language}"

    def tokens(self, split: str, language: str) -> Path:
        """The same lines as Moses tokens, lower-cased where the recipe says so."""
        return self.folder / "tok" / f"{split}.{language}"

    def subwords(self, split: str, language: str) -> Path:
        """The same lines in BPE, or in SentencePiece units."""
        return self.folder / "bpe" / f"{split}.{language}"

    def _fact(self, name: str, default: Any) -> Any:
        return json.loads(self.facts.read_text(encoding="utf-8"))[name] if self.facts.exists() else default

"""Every score that a translation can get, in one registry that the command line, the tables and the reports read.

A metric is one entry: a function of sources, hypotheses and references that returns a score with its signature. An
entry that also says how its score follows from sums over sentences (:class:`Decomposition`) can be tested for
significance. Names under which finished runs recorded their scores never change.
"""

import os
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER

from ..data.types import Scoring
from ..errors import UserError

COMET_VARIABLE = "LABO_COMET_MODEL"

_ORDERS = 4  # of BLEU's n-grams


class Texts(NamedTuple):
    """One translated test set, a line per sentence in each."""

    sources: Sequence[str]
    hypotheses: Sequence[str]
    references: Sequence[str]


@dataclass(frozen=True)
class Translation:
    """One translated test set as metrics read it."""

    raw: Texts  # detokenized
    tokens: Optional[Texts] = None  # the same lines as Moses tokens; None where the text was never tokenized

    def texts(self, metric: "Metric") -> Texts:
        """What ``metric`` reads.

        Raises:
            UserError: tokens of text that has none.
        """
        if not metric.tokenized:
            return self.raw
        if self.tokens is None:
            raise UserError(f"{metric.key} needs Moses tokens of the text and its translation, and there are none")
        return self.tokens


@dataclass(frozen=True)
class Score:
    """A corpus score, in percent, and the signature that makes it comparable."""

    name: str
    value: float
    signature: str

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f}  ({self.signature})"

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Decomposition:
    """A corpus score as a function of sums over sentences."""

    #: (sentences, S): what each sentence adds to the sums
    statistics: Callable[[Texts, Scoring], np.ndarray]
    #: (..., S) sums → (...) corpus scores, in percent
    corpus_score: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Metric:
    """One entry of the registry."""

    key: str  # as --metrics takes it
    name: Callable[[Scoring], str]  # as results record it
    score: Callable[[Texts, Scoring], Score]
    decomposition: Optional[Decomposition] = None  # None: no test of significance
    tokenized: bool = False  # whether it reads Moses tokens instead of raw text
    lower_is_better: bool = False
    digits: int = 2  # that tables show behind the point
    default_for: Callable[[Scoring], bool] = lambda scoring: False  # whether every run on such a corpus gets it


#: key → metric, in the order of the tables
METRICS: Dict[str, Metric] = {}


def register(metric: Metric) -> Metric:
    """Add ``metric`` to the registry."""
    METRICS[metric.key] = metric
    return metric


def find_metric(name: str, scoring: Optional[Scoring] = None) -> Metric:
    """The metric with this key, or with this name in results (of a corpus that is scored so); case is ignored.

    Raises:
        UserError: there is none.
    """
    for metric in METRICS.values():
        names = {metric.key, *(metric.name(one).lower() for one in (Scoring(), scoring) if one)}
        if name.lower() in names:
            return metric
    raise UserError(f"unknown metric {name!r}: choose from {', '.join(METRICS)}")


def default_metrics(scoring: Scoring, tokens: bool) -> List[Metric]:
    """What every run on a corpus is scored with.

    Args:
        tokens: whether the corpus has Moses tokens.
    """
    return [metric for metric in METRICS.values() if metric.default_for(scoring) and (tokens or not metric.tokenized)]


def score(metric: Metric, translation: Translation, scoring: Optional[Scoring] = None) -> Score:
    """The score of one translated test set.

    Raises:
        UserError: the numbers of lines differ, there is none, or the metric needs something that is not there.
    """
    texts = translation.texts(metric)
    _check_lines(texts)
    return metric.score(texts, scoring or Scoring())


def sentence_statistics(metric: Metric, translation: Translation, scoring: Optional[Scoring] = None) -> np.ndarray:
    """(sentences, S): what each sentence adds to the sums from which the score is computed.

    Raises:
        UserError: as :func:`score`, or the metric is no function of sums over sentences.
    """
    if metric.decomposition is None:
        raise UserError(f"{metric.key} is no function of sums over sentences, so its differences cannot be tested")
    texts = translation.texts(metric)
    _check_lines(texts)
    return metric.decomposition.statistics(texts, scoring or Scoring())


def _check_lines(texts: Texts) -> None:
    """UserError where the sides have different numbers of lines, or none."""
    lengths = {len(texts.sources), len(texts.hypotheses), len(texts.references)}
    if len(lengths) > 1 or not texts.references:
        raise UserError(
            f"{len(texts.hypotheses)} hypotheses cannot be scored against {len(texts.references)} references of "
            f"{len(texts.sources)} sources"
        )


# scores by sacreBLEU


def _by_sacrebleu(
    key: str,
    name: str,
    build: Callable[[Scoring], Any],
    corpus_score: Callable[[np.ndarray], np.ndarray],
    **options: Any,
) -> Metric:
    """An entry for the metric of sacreBLEU that ``build`` makes."""

    prepared = _for_references(build)

    def score_texts(texts: Texts, scoring: Scoring) -> Score:
        metric = prepared(tuple(texts.references), scoring)
        value = metric.corpus_score(list(texts.hypotheses), None).score
        return Score(name, value, str(metric.get_signature()))

    def statistics(texts: Texts, scoring: Scoring) -> np.ndarray:
        return _counts(prepared(tuple(texts.references), scoring), texts.hypotheses)

    decomposition = Decomposition(statistics, corpus_score)
    return register(Metric(key, lambda scoring: name, score_texts, decomposition, **options))


def _for_references(build: Callable[[Scoring], Any]) -> Callable[[Tuple[str, ...], Scoring], Any]:
    """A metric of sacreBLEU that has counted the n-grams of the references, for all systems of a test set."""

    @lru_cache(maxsize=8)
    def prepared(references: Tuple[str, ...], scoring: Scoring) -> Any:
        metric = build(scoring)
        metric._ref_cache = metric._cache_references([list(references)])
        return metric

    return prepared


def _counts(metric: Any, hypotheses: Sequence[str]) -> np.ndarray:
    """(sentences, S), as sacreBLEU's own significance test reads them; nothing public gives those of chrF."""
    return np.array(metric._extract_corpus_statistics(list(hypotheses), None), dtype=np.float64)


def _bleu_of_counts(sums: np.ndarray, smoothed: bool = True) -> np.ndarray:
    """BLEU-4 (Papineni et al., 2002) of (..., 10) lengths of hypothesis and reference, right and all n-grams.

    Args:
        smoothed: as mteval-v13a does where no n-gram of an order is right.
    """
    length, reference = sums[..., 0], sums[..., 1]
    right, total = sums[..., 2 : 2 + _ORDERS], sums[..., 2 + _ORDERS :]
    missing = right == 0
    substitute = 0.5 ** np.cumsum(missing, axis=-1) if smoothed else np.zeros_like(right)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(missing, substitute, right) / total
        brevity = np.where(length < reference, np.exp(1 - reference / length), 1.0)
        value = 100 * brevity * np.exp(np.log(precision).mean(axis=-1))
    useless = missing.all(axis=-1) | (total == 0).any(axis=-1)
    return np.where(useless, 0.0, value)


def _chrf_of_counts(sums: np.ndarray) -> np.ndarray:
    """chrF (Popović, 2015) with β = 2 of (..., 3·orders) n-grams of hypothesis, of reference, of both."""
    hypothesis, reference, both = (sums[..., place::3] for place in range(3))
    counted = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(counted.sum(axis=-1), 1)
    precision, recall = (
        np.where(counted, both / np.maximum(side, 1), 0.0).sum(axis=-1) / orders for side in (hypothesis, reference)
    )
    below = 4 * precision + recall
    return np.where(below > 0, 100 * 5 * precision * recall / np.where(below > 0, below, 1), 0.0)


def _ter_of_counts(sums: np.ndarray) -> np.ndarray:
    """TER (Snover et al., 2006) of (..., 2) edits and words of the reference."""
    edits, words = sums[..., 0], sums[..., 1]
    return 100 * np.where(words > 0, edits / np.where(words > 0, words, 1), np.minimum(edits, 1))


def _build_bleu(scoring: Scoring, tokenize: str = "") -> BLEU:
    tokenizer = tokenize or scoring.tokenize
    if tokenizer not in BLEU.TOKENIZERS:
        raise UserError(f"sacreBLEU has no tokenizer {tokenizer!r}: choose from {', '.join(BLEU.TOKENIZERS)}")
    try:
        return BLEU(lowercase=scoring.lowercase, tokenize=tokenizer)
    except (ImportError, RuntimeError) as error:  # those of Japanese and Korean are extras
        raise UserError(f"sacreBLEU cannot tokenize with {tokenizer!r}: {' '.join(str(error).split())}") from None


def _build_spbleu(scoring: Scoring) -> BLEU:
    from sacrebleu.tokenizers import tokenizer_spm

    model = tokenizer_spm.SPM_MODELS.get("flores200")
    if model is None:
        raise UserError("spBLEU needs a newer sacreBLEU: pip install 'sacrebleu>=2.2'")
    path = Path(tokenizer_spm.SACREBLEU_DIR) / "models" / os.path.basename(model["url"])
    if not path.exists():
        raise UserError(
            f"spBLEU needs the SentencePiece model of FLORES-200 in {path}: copy it there, or let "
            "'sacrebleu --tokenize flores200' download it where there is a network"
        )
    return _build_bleu(scoring, "flores200")


def _build_ter(scoring: Scoring) -> TER:
    asian = scoring.tokenize.split("-")[0] in ("zh", "ja", "ko", "char")
    return TER(case_sensitive=not scoring.lowercase, normalized=asian, asian_support=asian)


def _always(scoring: Scoring) -> bool:
    return True


_by_sacrebleu("bleu", "BLEU", _build_bleu, _bleu_of_counts, default_for=_always)
# sacreBLEU names chrF and chrF++ after their β, and the results with it
_by_sacrebleu("chrf", "chrF2", lambda scoring: CHRF(lowercase=scoring.lowercase), _chrf_of_counts, default_for=_always)
_by_sacrebleu("chrf++", "chrF2++", lambda scoring: CHRF(lowercase=scoring.lowercase, word_order=2), _chrf_of_counts)
_by_sacrebleu("ter", "TER", _build_ter, _ter_of_counts, lower_is_better=True)
_by_sacrebleu("spbleu", "spBLEU", _build_spbleu, _bleu_of_counts)


# BLEU of text as it is tokenized, as papers report it: that of Moses' ``multi-bleu.perl``. It depends on the tokenizer
# and compares only with scores of text that was tokenized alike; sacreBLEU's does not.


def _by_multi_bleu(
    key: str,
    note: Callable[[Scoring], str],
    prepare: Callable[[Sequence[str]], List[str]],
    default_for: Callable[[Scoring], bool],
) -> Metric:
    """An entry for tokenized BLEU of text that was ``prepare`` d in the way that ``note`` says, if it says any."""

    def name(scoring: Scoring) -> str:
        return f"BLEU (tokenised, {note(scoring)})" if note(scoring) else "BLEU (tokenised)"

    # force: no warning that the text is tokenized
    prepared = _for_references(lambda scoring: BLEU(tokenize="none", smooth_method="none", force=True))

    def statistics(texts: Texts, scoring: Scoring) -> np.ndarray:
        return _counts(prepared(tuple(prepare(texts.references)), scoring), prepare(texts.hypotheses))

    def corpus_score(sums: np.ndarray) -> np.ndarray:
        return _bleu_of_counts(sums, smoothed=False)

    def score_texts(texts: Texts, scoring: Scoring) -> Score:
        value = float(corpus_score(statistics(texts, scoring).sum(axis=0)))
        signature = "tokenised, multi-bleu compatible"
        return Score(name(scoring), value, f"{signature}, {note(scoring)}" if note(scoring) else signature)

    decomposition = Decomposition(statistics, corpus_score)
    return register(Metric(key, name, score_texts, decomposition, tokenized=True, default_for=default_for))


def split_compounds(lines: Sequence[str]) -> List[str]:
    """``rich-text`` or ``rich @-@ text`` as ``rich ##AT##-##AT## text``, the form that WMT'14 EN-DE is scored in.

    It is ``s{(\\S)-(\\S)}{$1 ##AT##-##AT## $2}g`` of tensor2tensor's ``get_ende_bleu.sh``, on text that Moses
    tokenized without ``-a``. What ``-a`` split is joined first: the substitution would find the dash of ``@-@`` too and
    make three tokens of it, which match each other and raise the score. Text tokenized with ``-a`` scores almost the
    same before and after.
    """
    # on bytes, as the script: of "face-à-face" it splits both dashes, of "face-a-face" only the first
    joined = [line.replace(" @-@ ", "-").encode() for line in lines]
    return [re.sub(rb"(\S)-(\S)", rb"\1 ##AT##-##AT## \2", line).decode() for line in joined]


_by_multi_bleu("tokenized", lambda scoring: "lower case" if scoring.lowercase else "", list, default_for=_always)
_by_multi_bleu(
    "compounds", lambda scoring: "compound splitting", split_compounds, lambda scoring: scoring.split_compounds
)


# a trained metric


def _comet_scores(texts: Texts, scoring: Scoring) -> np.ndarray:
    """(sentences, 2): the score of each sentence in percent by COMET (Rei et al., 2020), and 1."""
    scores = _predict_comet(_comet_model(), tuple(zip(*texts)))
    return np.stack([100 * scores, np.ones(len(scores))], axis=-1)


@lru_cache(maxsize=16)  # for the score and for its significance
def _predict_comet(path: Path, segments: Tuple[Tuple[str, str, str], ...]) -> np.ndarray:
    try:
        from comet import load_from_checkpoint  # gigabytes of libraries, which only this metric is worth
    except ImportError:
        raise UserError("COMET is not installed: pip install 'labo-fairseq[comet]'") from None
    import torch

    rows = [{"src": source, "mt": hypothesis, "ref": reference} for source, hypothesis, reference in segments]
    output = load_from_checkpoint(str(path)).predict(rows, batch_size=8, gpus=min(torch.cuda.device_count(), 1))
    return np.array(output["scores"], dtype=np.float64)


def _comet_model() -> Path:
    path = os.environ.get(COMET_VARIABLE, "")
    if not path:
        raise UserError(f"COMET needs a model: set {COMET_VARIABLE} to the path of its checkpoint")
    if not Path(path).is_file():
        raise UserError(f"{COMET_VARIABLE} is {path}, and no file is there")
    return Path(path)


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / np.maximum(sums[..., 1], 1)


def _comet(texts: Texts, scoring: Scoring) -> Score:
    value = float(_mean(_comet_scores(texts, scoring).sum(axis=0)))
    # a checkpoint lies in MODEL/checkpoints/model.ckpt, and its own name says nothing
    path = _comet_model()
    return Score("COMET", value, "/".join(path.resolve().parts[-3:]))


register(Metric("comet", lambda scoring: "COMET", _comet, Decomposition(_comet_scores, _mean)))

"""Searches for translations with a model in this process: n-best lists of beam search, samples, minimum Bayes risk."""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from sacrebleu.metrics import CHRF
from sacrebleu.metrics.helpers import extract_all_char_ngrams

from ..data.types import Scoring
from ..errors import UserError
from ..evaluation.generate import finish
from ..evaluation.metrics import find_metric
from ..evaluation.runs import Run
from .teacher_forcing import TeacherForcedModel, batches_by_length

_HYPOTHESES = 1024  # of a batch, all beams together


@dataclass(frozen=True)
class Search:
    """How hypotheses are looked for.

    Args:
        size: beam size, or the number of samples.
        temperature: the logarithms of the probabilities are divided by it.
        posterior: calibrated probabilities in place of the model's own.
        sampling: ancestral samples in place of beam search.
        seed: of the samples.
    """

    size: int
    temperature: float = 1.0
    posterior: bool = False
    sampling: bool = False
    seed: int = 1


class Hypothesis(NamedTuple):
    """One translation."""

    subwords: str
    log_probability: float  # in nats, its end included
    tokens: int  # its end included


class SearchingModel:
    """The model that a run is scored with, and the searches that it can make.

    Raises:
        UserError: a search with the posterior of a model whose method has none.
    """

    def __init__(self, run: Run, model: TeacherForcedModel, direction: Tuple[str, str]) -> None:
        self.run, self.forced, self.direction = run, model, direction

    def hypotheses(
        self, sources: Sequence[str], search: Search, done: Callable[[int], None] = lambda sentences: None
    ) -> List[List[Hypothesis]]:
        """All hypotheses that a search finishes, as many as its size, of every source sentence (subwords).

        Args:
            done: is told how many sentences were translated since it was called last.
        """
        with self._generator(search) as generator:
            torch.manual_seed(search.seed)
            found: Dict[int, List[Hypothesis]] = {}
            lengths = [len(source.split()) for source in sources]
            # the hypotheses of all must fit into memory
            for batch in batches_by_length(lengths, most=max(1, _HYPOTHESES // search.size)):
                for index, hypotheses in zip(batch, self._search([sources[index] for index in batch], generator)):
                    found[index] = hypotheses
                done(len(batch))
        return [found[index] for index in range(len(sources))]

    def texts(self, subwords: Sequence[str]) -> List[str]:
        """Detokenized lines of hypotheses."""
        from fairseq.data.data_utils import post_process

        data = self.run.data
        units = "sentencepiece" if data.uses_sentencepiece else "subword_nmt"
        return finish(data, self.direction[1], [post_process(line, units) for line in subwords])

    @contextmanager
    def _generator(self, search: Search) -> Iterator[object]:
        """fairseq's generator for a search; until the block ends, the model predicts what the search wants."""
        from fairseq.dataclass.configs import GenerationConfig

        from ..criterions.posterior_option import PosteriorProbabilities

        model, log_posterior = self.forced.model, self.forced.log_posterior
        if search.posterior:
            if log_posterior is None:
                raise UserError(f"{self.run.folder}: its training objective cannot be inverted without more data")
            model.get_normalized_probs = PosteriorProbabilities(model, log_posterior)
        # the score of a hypothesis is its log-probability: length penalties are applied by who chooses
        options = {"beam": search.size, "temperature": search.temperature, "sampling": search.sampling}
        try:
            yield self.forced.task.build_generator([model], GenerationConfig(unnormalized=True, **options))
        finally:
            if search.posterior:
                del model.get_normalized_probs

    @torch.no_grad()
    def _search(self, sources: Sequence[str], generator: object) -> List[List[Hypothesis]]:
        forced = self.forced
        batch = forced.source_batch(sources)
        dictionary = forced.task.target_dictionary
        translated: Dict[int, List[Hypothesis]] = {}
        for index, hypotheses in zip(
            batch["id"].tolist(), forced.task.inference_step(generator, [forced.model], batch)
        ):
            translated[index] = [
                Hypothesis(dictionary.string(one["tokens"].cpu()), float(one["score"]), len(one["tokens"]))
                for one in hypotheses
            ]
        return [translated[index] for index in range(len(sources))]


def best_hypothesis(hypotheses: Sequence[Hypothesis], length_penalty: float) -> Hypothesis:
    """The one with the largest log-probability over its length to the power of the penalty, as fairseq ranks them."""
    return max(hypotheses, key=lambda one: one.log_probability / one.tokens**length_penalty)


def minimum_bayes_risk(lines: Sequence[str], scoring: Scoring) -> int:
    """Which of the samples ``lines`` of one sentence has the largest mean chrF against all of them.

    Each sample stands for the references that the model thinks of (Eikema and Aziz, 2020).
    """
    distinct = list(dict.fromkeys(lines))
    weights = np.array([lines.count(line) for line in distinct], dtype=np.float64)
    utility = chrf_matrix(distinct, scoring) @ weights
    return lines.index(distinct[int(utility.argmax())])


def chrf_matrix(lines: Sequence[str], scoring: Scoring) -> np.ndarray:
    """(S, S): chrF, in percent, of every line (row) with every line (column) as its reference."""
    chrf = find_metric("chrf")
    assert chrf.decomposition is not None
    lowered = [line.lower() if scoring.lowercase else line for line in lines]
    ngrams = [extract_all_char_ngrams(line, CHRF.CHAR_ORDER) for line in lowered]
    sums = np.empty((len(lines), len(lines), 3 * CHRF.CHAR_ORDER))
    for order, counters in enumerate(zip(*ngrams)):
        columns = {
            ngram: number for number, ngram in enumerate(dict.fromkeys(ngram for one in counters for ngram in one))
        }
        counts = np.zeros((len(lines), len(columns)))
        for row, counter in enumerate(counters):
            counts[row, [columns[ngram] for ngram in counter]] = list(counter.values())
        total = counts.sum(axis=1)
        sums[:, :, 3 * order], sums[:, :, 3 * order + 1] = total[:, None], total[None, :]
        # the smaller of two counts is the number of t for which both are at least t
        at_least = (counts >= t for t in range(1, int(counts.max(initial=0)) + 1))
        matches = (level.astype(np.float64) for level in at_least)
        sums[:, :, 3 * order + 2] = sum((level @ level.T for level in matches), np.zeros((len(lines), len(lines))))
    return chrf.decomposition.corpus_score(sums)

"""Whether a method is better than another over several seeds: paired bootstrap resampling of the test set.

Koehn (2004), with the mean of the seeds' BLEU in the place of one BLEU. A sentence that is drawn is drawn for every
seed of both methods, because their translations of it are not independent.
"""

from typing import List, Sequence

import numpy as np
from sacrebleu.metrics import BLEU

from ..errors import UserError


def paired_p(
    baseline: Sequence[Sequence[str]],
    system: Sequence[Sequence[str]],
    references: Sequence[str],
    lowercase: bool = False,
    samples: int = 1000,
    seed: int = 12345,
) -> float:
    """Probability that a difference of mean BLEU as large as the one seen, in either direction, is chance.

    The share of samples whose difference departs at least so far from the mean of all samples, one added to both
    counts. sacreBLEU counts departures in one direction, so that its p is about half of this one. Equal arguments
    give equal results.

    Args:
        baseline, system: detokenised translations, for each seed one list as long as ``references``.
        lowercase: compare without case.
        samples: of the bootstrap, each as large as the test set.

    Raises:
        UserError: no translations, or lists of another length than the references.
    """
    if not (baseline and system and references):
        raise UserError("the bootstrap needs translations of both systems and references")
    if any(len(each) != len(references) for each in (*baseline, *system)):
        raise UserError(f"the translations do not have {len(references)} lines, as the references do")
    ours, theirs = (_statistics(each, references, lowercase) for each in (system, baseline))
    observed = _mean_bleu(ours.sum(axis=1)) - _mean_bleu(theirs.sum(axis=1))
    generator = np.random.default_rng(seed)
    differences: List[float] = []
    for _ in range(samples):
        # how often each sentence was drawn
        drawn = np.bincount(generator.integers(len(references), size=len(references)), minlength=len(references))
        differences.append(_mean_bleu(drawn @ ours) - _mean_bleu(drawn @ theirs))
    centred = np.abs(np.array(differences) - np.mean(differences))
    return float((np.sum(centred >= abs(observed)) + 1) / (samples + 1))


def _statistics(hypotheses: Sequence[Sequence[str]], references: Sequence[str], lowercase: bool) -> np.ndarray:
    """(seeds, sentences, 10): lengths of hypothesis and reference, right n-grams and all n-grams, n from 1 to 4."""
    metric = BLEU(lowercase=lowercase, effective_order=True)  # which is for sentences, and changes no count
    scores = [
        [metric.sentence_score(line, [reference]) for line, reference in zip(lines, references)] for lines in hypotheses
    ]
    return np.array([[[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in line] for line in scores])


def _mean_bleu(sums: np.ndarray) -> float:
    """Mean over seeds of the corpus BLEU with the statistics (seeds, 10)."""
    return float(
        np.mean(
            [
                BLEU.compute_bleu(
                    correct=row[2:6].tolist(), total=row[6:].tolist(), sys_len=int(row[0]), ref_len=int(row[1])
                ).score
                for row in sums
            ]
        )
    )

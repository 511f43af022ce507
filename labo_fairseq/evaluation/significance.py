"""Whether a method is better than another over several seeds: paired bootstrap resampling of the test set.

Koehn (2004), with the mean of the seeds' BLEU in the place of one BLEU. A sentence that is drawn is drawn for every
seed of both methods, because their translations of it are not independent.
"""

import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, List, Optional, Sequence

import numpy as np
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

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


@dataclass(frozen=True)
class Compared:
    """One metric of one system, in percent."""

    system: str
    metric: str
    score: float
    mean: float  # over the bootstrap's samples
    interval: float  # half the width of the middle 95 % of the samples
    p: Optional[float]  # that a difference from the first system is chance; None: this is the first system
    signature: str

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)


def compare(
    systems: Dict[str, Sequence[str]],
    references: Sequence[str],
    lowercase: bool = False,
    samples: int = 1000,
    seed: int = 12345,
) -> List[Compared]:
    """BLEU and chrF of each of ``systems`` by sacreBLEU, tested against the first of them.

    Equal arguments give equal results.

    Args:
        systems: name → detokenised translations; two or more.
        references: one a line.
        lowercase: compare without case.
        samples: of the bootstrap, each as large as the test set.

    Returns:
        BLEU of every system in their order, then chrF.

    Raises:
        UserError: fewer than two systems, a system with another number of lines than the references, no lines,
            ``samples`` or ``seed`` below 1.
    """
    if len(systems) < 2:
        raise UserError("a comparison needs at least two systems")
    if not references:
        raise UserError("the references are empty: there is nothing to compare on")
    for name, hypotheses in systems.items():
        if len(hypotheses) != len(references):
            raise UserError(f"{name} has {len(hypotheses)} lines, but the references have {len(references)}")
    # sacreBLEU takes 0 samples for its default and 0 as a seed for none
    for name, value in (("samples", samples), ("seed", seed)):
        if value < 1:
            raise UserError(f"the bootstrap's {name} is {value}: it must be at least 1")
    metrics = {"BLEU": BLEU(lowercase=lowercase), "chrF": CHRF(lowercase=lowercase)}
    with _seed(seed):
        test = PairedTest(
            [(name, list(hypotheses)) for name, hypotheses in systems.items()],
            metrics,
            [list(references)],
            test_type="bs",
            n_samples=samples,
        )
        signatures, results = test()
    return [
        Compared(name, metric, result.score, float(result.mean), float(result.ci), result.p_value, str(signature))
        for metric, signature in signatures.items()
        for name, result in zip(systems, results[metric])
    ]


def render(compared: Sequence[Compared]) -> str:
    """A table of what :func:`compare` returns, one block a metric with its signature below."""
    width = max(len(each.system) for each in compared)
    lines: List[str] = []
    for metric in dict.fromkeys(each.metric for each in compared):
        block = [each for each in compared if each.metric == metric]
        lines.append(f"{metric:<{width}}  {'score':>6}  {'mean ± 95 %':>14}  {'p':>6}")
        for each in block:
            p = "" if each.p is None else f"{each.p:.4f}"
            interval = f"{each.mean:.2f} ± {each.interval:.2f}"
            lines.append(f"{each.system:<{width}}  {each.score:>6.2f}  {interval:>14}  {p:>6}".rstrip())
        lines += [f"({block[0].signature})", ""]
    return "\n".join(lines[:-1])


@contextmanager
def _seed(seed: int) -> Iterator[None]:
    """sacreBLEU's seed, which it takes from the environment alone."""
    before = os.environ.get("SACREBLEU_SEED")
    os.environ["SACREBLEU_SEED"] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SACREBLEU_SEED"]
        else:
            os.environ["SACREBLEU_SEED"] = before

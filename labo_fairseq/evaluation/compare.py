"""Whether one system is better than another on the same test set: paired bootstrap resampling (Koehn, 2004)."""

import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, List, Optional, Sequence

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from ..errors import UserError


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

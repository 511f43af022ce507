"""Which posterior belongs to a checkpoint: the method and the options that it was trained with."""

from functools import partial
from typing import Any, Callable, Optional

from fairseq.criterions import CRITERION_REGISTRY
from torch import Tensor

from ..losses import cross_entropy_log_posterior, label_smoothing_log_posterior

#: logits (…, K) → logarithms of the probabilities that are recovered from them, (…, K)
LogPosterior = Callable[[Tensor], Tensor]

#: of fairseq's own label smoothing, which gives the mass to the K − 1 other classes
smoothed_log_posterior = partial(label_smoothing_log_posterior, over_others=True)


def log_posterior_of(criterion: Any, updates: int) -> Optional[LogPosterior]:
    """What recovers the distribution that a training saw from the logits of its model, see :mod:`..losses.posterior`.

    Args:
        criterion: the section of a checkpoint's configuration, with ``_name`` and the options.
        updates: how many the training has made; until the end of the smoothing warm-up it is label smoothing.

    Returns:
        None where the criterion is of another project, or where logits alone are not enough (distillation).
    """
    name = criterion._name
    if name == "cross_entropy":
        return cross_entropy_log_posterior
    warmup = getattr(criterion, "smoothing_warmup_steps", 0)
    if name == "label_smoothed_cross_entropy" or (warmup and updates <= warmup):
        mass = criterion.label_smoothing
        return partial(smoothed_log_posterior, label_smoothing=mass) if mass else cross_entropy_log_posterior
    of_criterion = getattr(CRITERION_REGISTRY.get(name), "log_posterior", None)
    return None if of_criterion is None else of_criterion(criterion)

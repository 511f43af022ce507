"""Say at the start where a training is so short that most of it, or all, belongs to the smoothing warm-up."""

import logging
import math
from functools import wraps
from typing import Any, Callable

from fairseq.trainer import Trainer

logger = logging.getLogger(__name__)

#: the share of the updates that may belong to the warm-up without a word
_MOST = 0.5
#: in the paper's trainings: 10,000 of 300,000
_OF_THE_PAPER = 0.03


def warn_of_short_trainings() -> None:
    """Wrap where a trainer gets its first batches: before that, it does not know how many an epoch has."""
    Trainer.get_train_iterator = _warning(Trainer.get_train_iterator)


def _warning(get_iterator: Callable) -> Callable:
    @wraps(get_iterator)
    def got(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        batches = get_iterator(trainer, *args, **kwargs)
        criterion = trainer.get_criterion()
        warmup = getattr(getattr(criterion, "cfg", None), "smoothing_warmup_steps", 0)
        if warmup and not getattr(criterion, "told_of_length", False):
            criterion.told_of_length = True
            optimization = trainer.cfg.optimization
            updates = updates_of(optimization, len(batches))
            ended = optimization.max_epoch and batches.next_epoch_idx > optimization.max_epoch
            if not ended and trainer.get_num_updates() < updates:
                _tell(criterion.name, warmup, updates)
        return batches

    return got


def updates_of(optimization: Any, batches: int) -> float:
    """How many updates a training makes at most, also before it resumed: infinitely many where only ``--patience`` or a
    kill ends it.

    Args:
        optimization: that section of fairseq's configuration.
        batches: of an epoch, for each worker.
    """
    updates = float(optimization.max_update or math.inf)
    if optimization.max_epoch:
        frequencies = optimization.update_freq
        per_epoch = [math.ceil(batches / frequency) for frequency in frequencies]
        epochs = [per_epoch[min(epoch, len(per_epoch) - 1)] for epoch in range(optimization.max_epoch)]
        updates = min(updates, sum(epochs))
    return updates


def _tell(name: str, warmup: int, updates: float) -> None:
    if warmup <= _MOST * updates:
        return
    left = f"it is label smoothing and {name} never begins" if warmup >= updates else f"{updates - warmup:.0f} are left"
    logger.warning(
        f"{name}: the smoothing warm-up takes {warmup:,} of the {updates:,.0f} updates of this training: {left}. "
        f"--smoothing-warmup-steps {max(1, round(_OF_THE_PAPER * updates))} would be the paper's share"
    )

"""Say at the start where a training is so short that most of it, or all, belongs to the smoothing warm-up."""

import logging
import math
from functools import wraps
from typing import Any, Callable

from fairseq.trainer import Trainer

from ..fairseq_patches.command_line import as_written
from ..losses.warmup import describe_long_warmup

logger = logging.getLogger(__name__)


def warn_of_short_trainings() -> None:
    """Wrap where a trainer gets its first batches: before that, it does not know how many an epoch has."""
    Trainer.get_train_iterator = _warning(Trainer.get_train_iterator)


def _warning(get_iterator: Callable) -> Callable:
    @wraps(get_iterator)
    def got(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        batches = get_iterator(trainer, *args, **kwargs)
        criterion = trainer.get_criterion()
        warmup = getattr(getattr(criterion, "cfg", None), "smoothing_warmup_steps", 0)
        if warmup and not getattr(criterion, "warned_of_warmup", False):
            criterion.warned_of_warmup = True
            optimization = trainer.cfg.optimization
            updates = updates_of(optimization, len(batches))
            ended = optimization.max_epoch and batches.next_epoch_idx > optimization.max_epoch
            if not ended and trainer.get_num_updates() < updates:
                too_long = describe_long_warmup(criterion.name, "--smoothing-warmup-steps ", warmup, updates)
                if too_long:
                    logger.warning(as_written(too_long))
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

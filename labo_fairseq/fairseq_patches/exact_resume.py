"""Let fairseq resume from a checkpoint as if it had never stopped. Three of its parts forget where they were.

* The batches: since 0.12.3 those of all epochs are drawn in the first one, with a seed that counts epochs. A training
  that resumes in another epoch draws others, and sees some sentences twice and others not at all.
* ``polynomial_decay``: at the begin of an epoch the rate of one update is the highest, without decay; and where a
  training resumes after the warm-up, that of its first step.
* The log: where a training resumes between two epochs, the next averages are those of fewer updates.
"""

from functools import wraps
from typing import Any, Callable

from fairseq.logging import metrics
from fairseq.optim.lr_scheduler.polynomial_decay_schedule import PolynomialDecayLRSchedule
from fairseq.tasks import FairseqTask
from fairseq.trainer import Trainer

_FIRST = 1  # epoch

_get_batch_iterator = FairseqTask.get_batch_iterator
_step_update = PolynomialDecayLRSchedule.step_update
_step_begin_epoch = PolynomialDecayLRSchedule.step_begin_epoch


@wraps(_get_batch_iterator)
def _batches_of_first_epoch(task: Any, dataset: Any, *args: Any, epoch: int = _FIRST, **kwargs: Any) -> Any:
    reused = task.can_reuse_epoch_itr(dataset) and not (
        kwargs.get("disable_iterator_cache") or kwargs.get("update_epoch_batch_itr")
    )
    if not reused or epoch == _FIRST or dataset in task.dataset_to_epoch_iter:
        return _get_batch_iterator(task, dataset, *args, epoch=epoch, **kwargs)
    iterator = _get_batch_iterator(task, dataset, *args, epoch=_FIRST, **kwargs)
    iterator.epoch = epoch
    dataset.set_epoch(epoch)
    return iterator


@wraps(_step_update)
def _noted(schedule: Any, num_updates: int) -> float:
    schedule.num_updates = num_updates
    return _step_update(schedule, num_updates)


@wraps(_step_begin_epoch)
def _rate_of_update(schedule: Any, epoch: int) -> float:
    rate = _step_begin_epoch(schedule, epoch)
    made = getattr(schedule, "num_updates", 0)
    return schedule.step_update(made) if made else rate


def _with_averages(load_checkpoint: Callable) -> Callable:
    @wraps(load_checkpoint)
    def loaded(trainer: Any, filename: str, *resets: Any, reset_meters: bool = False) -> Any:
        state = load_checkpoint(trainer, filename, *resets, reset_meters=reset_meters)
        if state and not reset_meters and state["train_iterator"]["iterations_in_epoch"] == 0:
            # not the clocks, which have stood still
            running = [meter for meter in state.get("metrics", {}).get("train_inner", ()) if meter[2] == "AverageMeter"]
            metrics.load_state_dict({"train_inner": running})
        return state

    return loaded


def resume_exactly() -> None:
    """Replace fairseq's methods."""
    FairseqTask.get_batch_iterator = _batches_of_first_epoch
    PolynomialDecayLRSchedule.step_update = _noted
    PolynomialDecayLRSchedule.step_begin_epoch = _rate_of_update
    Trainer.load_checkpoint = _with_averages(Trainer.load_checkpoint)

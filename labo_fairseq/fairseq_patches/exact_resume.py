"""Let fairseq resume from a checkpoint as if it had never stopped.

Three of its parts forget where they were:

* The batches: since 0.12.3 those of all epochs are drawn in the first one, with a seed that counts epochs. A training
  that resumes in another epoch draws others, and sees some sentences twice and others not at all.
* ``polynomial_decay``: at the begin of an epoch the rate of one update is the highest, without decay; and where a
  training resumes after the warm-up, that of its first step.
* The log: where a training resumes between two epochs, the next averages are those of fewer updates.

And its checkpoints leave out state that decides how a training goes on:

* the counter of ``--patience`` and the best value that it compares with, which are attributes of a function;
* what ``reduce_lr_on_plateau`` counts (bad epochs, cooldown), and the last validation value: a checkpoint is written
  before the schedule sees that value, and a resumed schedule never did;
* when ``--fp16`` has last changed its loss scale, and the whole loss scale of ``--amp``.

The values of a training that ran before in the same process do not count in the next one. And a training that
``--patience`` or ``--max-update`` has ended is not trained further when it is started again.
"""

import logging
import sys
from functools import wraps
from inspect import signature
from typing import Any, Callable, Dict, Iterator

from fairseq import checkpoint_utils
from fairseq.logging import metrics
from fairseq.optim.dynamic_loss_scaler import DynamicLossScaler
from fairseq.optim.lr_scheduler.polynomial_decay_schedule import PolynomialDecayLRSchedule
from fairseq.optim.lr_scheduler.reduce_lr_on_plateau import ReduceLROnPlateauLRSchedule
from fairseq.tasks import FairseqTask
from fairseq.trainer import Trainer

from .command_line import as_written

logger = logging.getLogger(__name__)

_FIRST = 1  # epoch
_EPOCHS_IN_SEED = "_epochs_in_seed"  # of a task: what --update-ordered-indices-seed has added to the seed
_get_batch_iterator = FairseqTask.get_batch_iterator
_get_train_iterator = Trainer.get_train_iterator
_step_update = PolynomialDecayLRSchedule.step_update
_step_begin_epoch = PolynomialDecayLRSchedule.step_begin_epoch

EARLY_STOPPING, LOSS_SCALER = "early_stopping", "loss_scaler"  # in the extra_state of a checkpoint

_COUNTED = ("best", "num_runs")
_NO_EPOCH = -1  # fairseq takes 0 for no limit
_ON_PLATEAU = ("num_bad_epochs", "cooldown_counter")

_plateau_state = ReduceLROnPlateauLRSchedule.state_dict
_load_plateau_state = ReduceLROnPlateauLRSchedule.load_state_dict


@wraps(_get_batch_iterator)
def _batches_of_first_epoch(*args: Any, **kwargs: Any) -> Any:
    called = signature(_get_batch_iterator).bind(*args, **kwargs)
    called.apply_defaults()
    values = called.arguments
    task, dataset, epoch = values["self"], values["dataset"], values["epoch"]
    reused = task.can_reuse_epoch_itr(dataset) and not (
        values.get("disable_iterator_cache") or values.get("update_epoch_batch_itr")
    )
    if not reused or epoch == _FIRST or dataset in task.dataset_to_epoch_iter:
        return _get_batch_iterator(*args, **kwargs)
    values["epoch"] = _FIRST
    values["seed"] -= getattr(task, _EPOCHS_IN_SEED, 0)
    iterator = _get_batch_iterator(*called.args, **called.kwargs)
    iterator.epoch = epoch
    dataset.set_epoch(epoch)
    return iterator


@wraps(_get_train_iterator)
def _telling_seed(trainer: Any, epoch: int, *args: Any, **kwargs: Any) -> Any:
    grows = trainer.cfg.dataset.update_ordered_indices_seed
    setattr(trainer.task, _EPOCHS_IN_SEED, epoch - _FIRST if grows else 0)
    try:
        return _get_train_iterator(trainer, epoch, *args, **kwargs)
    finally:
        delattr(trainer.task, _EPOCHS_IN_SEED)


@wraps(_step_update)
def _with_update_noted(schedule: Any, num_updates: int) -> float:
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
    Trainer.get_train_iterator = _telling_seed
    PolynomialDecayLRSchedule.step_update = _with_update_noted
    PolynomialDecayLRSchedule.step_begin_epoch = _rate_of_update
    Trainer.load_checkpoint = _with_averages(Trainer.load_checkpoint)


def _early_stoppings() -> Iterator[Callable]:
    """fairseq's ``should_stop_early``, whose attributes are its state; ``python -m fairseq_cli.train`` has its own."""
    for name in ("__main__", "fairseq_cli.train"):
        function = getattr(sys.modules.get(name), "should_stop_early", None)
        if function is not None:
            yield function


def _scaler_state(scaler: Any) -> Dict[str, Any]:
    return dict(vars(scaler)) if isinstance(scaler, DynamicLossScaler) else scaler.state_dict()


def _restore_scaler(scaler: Any, state: Dict[str, Any]) -> None:
    """Put back what :func:`_scaler_state` gave, where the training still has a loss scale of the same kind."""
    if _scaler_state(scaler).keys() != state.keys():
        return
    if isinstance(scaler, DynamicLossScaler):
        # how often the scale changes, and within which limits, is for the options to say
        vars(scaler).update({name: value for name, value in state.items() if name == "loss_scale" or name[0] == "_"})
    else:
        scaler.load_state_dict(state)


def _with_all_state(save_checkpoint: Callable) -> Callable:
    @wraps(save_checkpoint)
    def saved(trainer: Any, filename: str, extra_state: Dict[str, Any]) -> Any:
        more = {}
        for function in _early_stoppings():
            if hasattr(function, "best"):
                more[EARLY_STOPPING] = {name: getattr(function, name) for name in _COUNTED}
        scaler = getattr(trainer.optimizer, "scaler", None)
        if scaler is not None:
            more[LOSS_SCALER] = _scaler_state(scaler)
        return save_checkpoint(trainer, filename, {**extra_state, **more})

    return saved


def _restoring_it(load_checkpoint: Callable) -> Callable:
    @wraps(load_checkpoint)
    def loaded(
        trainer: Any,
        filename: str,
        reset_optimizer: bool = False,
        reset_lr_scheduler: bool = False,
        optimizer_overrides: Any = None,
        reset_meters: bool = False,
    ) -> Any:
        _forget()
        state = load_checkpoint(
            trainer, filename, reset_optimizer, reset_lr_scheduler, optimizer_overrides, reset_meters=reset_meters
        )
        if not state or reset_optimizer:
            return state
        scaler = getattr(trainer.optimizer, "scaler", None)
        if scaler is not None and LOSS_SCALER in state:
            _restore_scaler(scaler, state[LOSS_SCALER])
        iterator = state["train_iterator"]
        if iterator["iterations_in_epoch"] == 0 and state.get("val_loss") is not None and not reset_lr_scheduler:
            trainer.lr_step(iterator["epoch"] - 1, state["val_loss"])
        bad_runs = 0
        if not reset_meters and EARLY_STOPPING in state:
            bad_runs = state[EARLY_STOPPING]["num_runs"]
            for function in _early_stoppings():
                vars(function).update(state[EARLY_STOPPING])
        patience, max_update = trainer.cfg.checkpoint.patience, trainer.cfg.optimization.max_update
        if 0 < patience <= bad_runs or 0 < max_update <= trainer.get_num_updates():
            logger.info(as_written(f"this training has ended: --patience {patience}, --max-update {max_update}"))
            trainer.cfg.optimization.max_epoch = _NO_EPOCH
        return state

    return loaded


def _forget() -> None:
    for function in (checkpoint_utils.save_checkpoint, *_early_stoppings()):
        for name in _COUNTED:
            vars(function).pop(name, None)


def _with_counters(schedule: ReduceLROnPlateauLRSchedule) -> Dict[str, Any]:
    counters = {name: getattr(schedule.lr_scheduler, name) for name in _ON_PLATEAU}
    return {**_plateau_state(schedule), **counters}


def _load_with_counters(schedule: ReduceLROnPlateauLRSchedule, state: Dict[str, Any]) -> None:
    _load_plateau_state(schedule, state)
    for name in _ON_PLATEAU:
        if name in state:
            setattr(schedule.lr_scheduler, name, state[name])


def save_all_state() -> None:
    """Wrap how a ``Trainer`` saves and loads checkpoints, and ``reduce_lr_on_plateau`` its state."""
    Trainer.save_checkpoint = _with_all_state(Trainer.save_checkpoint)
    Trainer.load_checkpoint = _restoring_it(Trainer.load_checkpoint)
    ReduceLROnPlateauLRSchedule.state_dict = wraps(_plateau_state)(_with_counters)
    ReduceLROnPlateauLRSchedule.load_state_dict = wraps(_load_plateau_state)(_load_with_counters)

"""Let fairseq choose models by a validation value that means the same in every update.

``--best-checkpoint-metric``, by default ``loss``, decides on the best checkpoint, ``--patience``,
``reduce_lr_on_plateau`` and ``--keep-best-checkpoints``. The loss of a criterion with a smoothing warm-up is another
function after it, and its nll may stay above that of the warm-up for good. Such a criterion names its own metric in
``validation_metric``, which is used unless the user names one.
"""

import logging
import multiprocessing.process
from functools import wraps
from pathlib import Path
from typing import Any, Callable, Dict

from fairseq import checkpoint_utils
from fairseq.dataclass.configs import CheckpointConfig
from fairseq.optim.lr_scheduler.reduce_lr_on_plateau import ReduceLROnPlateauLRSchedule
from fairseq.trainer import Trainer

from .command_line import argument, arguments, as_written
from .exact_resume import EARLY_STOPPING

logger = logging.getLogger(__name__)

_DEFAULT = CheckpointConfig.best_checkpoint_metric
#: those that a better model has more of
_MAXIMIZED = ("accuracy",)
#: those that rise where the smoothing warm-up ends
_MISLEADING = ("loss", "nll_loss", "ppl")
#: in the ``extra_state`` of a checkpoint that is loaded: what ``best`` and ``val_loss`` there are values of
METRIC = "best_checkpoint_metric"


def _named_by_user() -> bool:
    """Whether the command line, or the configuration file that it gives to Hydra, holds a metric."""
    if argument("--best-checkpoint-metric"):
        return True
    try:
        from hydra_plugins.labo_fairseq.primary_config import read_primary_config
    except ModuleNotFoundError:  # a copy of labo_fairseq alone, which no fairseq-hydra-train knows either
        return False
    # Hydra may have changed the working directory
    started_in: str = multiprocessing.process.ORIGINAL_DIR  # type: ignore[attr-defined]
    config = read_primary_config(arguments(), Path(started_in))
    if any(override.lstrip("+").startswith(f"checkpoint.{METRIC}=") for override in config.overrides):
        return True
    checkpoint = config.settings.get("checkpoint")
    return isinstance(checkpoint, dict) and checkpoint.get(METRIC) is not None


def _choose(metric: str, cfg: Any) -> None:
    cfg.checkpoint.best_checkpoint_metric = metric
    cfg.checkpoint.maximize_best_checkpoint_metric = metric in _MAXIMIZED
    # a copy, where the configuration does not come from Hydra
    if "maximize_best_checkpoint_metric" in (cfg.lr_scheduler or ()):
        cfg.lr_scheduler.maximize_best_checkpoint_metric = metric in _MAXIMIZED
    logger.info(
        as_written(
            f"the best checkpoint, --patience and reduce_lr_on_plateau go by the validation {metric}, which means the "
            f"same in every update; the {_DEFAULT} of this criterion does not. --best-checkpoint-metric chooses another"
        )
    )


def _with_a_metric_of_its_own(init: Callable) -> Callable:
    @wraps(init)
    def built(trainer: Any, cfg: Any, task: Any, model: Any, criterion: Any, *args: Any, **kwargs: Any) -> None:
        metric = getattr(criterion, "validation_metric", _DEFAULT)
        if metric != _DEFAULT:
            named = cfg.checkpoint.best_checkpoint_metric
            if named == _DEFAULT and not _named_by_user():
                _choose(metric, cfg)
            elif named in _MISLEADING and criterion.cfg.smoothing_warmup_steps:
                logger.warning(
                    as_written(
                        f"--best-checkpoint-metric {named} rises where the smoothing warm-up ends: a model of the "
                        f"warm-up may stay the best. Not so the {metric}, nor bleu"
                    )
                )
        init(trainer, cfg, task, model, criterion, *args, **kwargs)

    return built


def _with_its_metric(load: Callable) -> Callable:
    @wraps(load)
    def loaded(*args: Any, **kwargs: Any) -> Dict[str, Any]:
        state = load(*args, **kwargs)
        checkpoint = (state.get("cfg") or {}).get("checkpoint")
        if checkpoint and isinstance(state.get("extra_state"), dict):
            state["extra_state"][METRIC] = checkpoint.get(METRIC)
        return state

    return loaded


def _without_values_of_another_metric(load_checkpoint: Callable) -> Callable:
    @wraps(load_checkpoint)
    def loaded(trainer: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        state = load_checkpoint(trainer, filename, *args, **kwargs)
        if not state or not hasattr(trainer.get_criterion(), "validation_metric"):
            return state
        its, mine = state.get(METRIC), trainer.cfg.checkpoint.best_checkpoint_metric
        if its not in (None, mine):
            for name in ("best", EARLY_STOPPING):
                state.pop(name, None)
            state["val_loss"] = None
            schedule = trainer.lr_scheduler
            schedule.best = None
            if isinstance(schedule, ReduceLROnPlateauLRSchedule):
                schedule.lr_scheduler._reset()
            logger.info(f"{filename} compared models by the validation {its}: the best {mine} is counted anew")
        return state

    return loaded


def choose_models_by_one_metric() -> None:
    """Wrap the making of a ``Trainer``, and its loading of checkpoints."""
    Trainer.__init__ = _with_a_metric_of_its_own(Trainer.__init__)
    checkpoint_utils.load_checkpoint_to_cpu = _with_its_metric(checkpoint_utils.load_checkpoint_to_cpu)
    Trainer.load_checkpoint = _without_values_of_another_metric(Trainer.load_checkpoint)

"""Let fairseq say in one line, without a traceback, that a checkpoint does not fit the training."""

from functools import wraps
from typing import Any, Callable

from fairseq.trainer import Trainer


def _or_say_why(load_checkpoint: Callable) -> Callable:
    @wraps(load_checkpoint)
    def loaded(trainer: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return load_checkpoint(trainer, filename, *args, **kwargs)
        except Exception as error:
            reason = str(error)
            if "Cannot load model parameters" in reason:
                reason = "its model has other parameters: see to it that architecture and dictionaries are the same"
            elif "does not match" not in reason:
                raise
            raise SystemExit(f"cannot go on from {filename}: {reason}") from None

    return loaded


def explain_checkpoints_that_do_not_fit() -> None:
    """Wrap ``Trainer.load_checkpoint``."""
    Trainer.load_checkpoint = _or_say_why(Trainer.load_checkpoint)

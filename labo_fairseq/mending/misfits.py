"""Let fairseq say in one line, without a traceback, that a checkpoint does not fit the training."""

from functools import wraps
from typing import Any

from fairseq.trainer import Trainer

_load = Trainer.load_checkpoint


@wraps(_load)
def _load_or_say_why(self: Trainer, filename: str, *args: Any, **kwargs: Any) -> Any:
    try:
        return _load(self, filename, *args, **kwargs)
    except Exception as error:
        reason = str(error)
        if "Cannot load model parameters" in reason:
            reason = "its model has other parameters: see to it that architecture and dictionaries are the same"
        elif "does not match" not in reason:
            raise
        raise SystemExit(f"cannot go on from {filename}: {reason}") from None


def explain_checkpoints_that_do_not_fit() -> None:
    """Replace ``Trainer.load_checkpoint``."""
    Trainer.load_checkpoint = _load_or_say_why

"""Copy checkpoints atomically, and say in one line, without a traceback, that one does not fit the training.

fairseq writes a checkpoint under a temporary name, but copies it to ``checkpoint_best.pt`` and ``checkpoint_last.pt``
in place. A kill in the middle of that leaves half of the file that the next start reads.
"""

import os
from functools import wraps
from typing import Any, Callable

from fairseq.file_io import PathManager
from fairseq.trainer import Trainer

_copy_in_place = PathManager.copy


def _copy(src_path: str, dst_path: str, overwrite: bool = False) -> Any:
    if not overwrite or not os.path.isdir(os.path.dirname(os.path.abspath(dst_path))):  # or not on this file system
        return _copy_in_place(src_path, dst_path, overwrite=overwrite)
    part = f"{dst_path}.tmp"  # as fairseq names what it has not finished
    copied = _copy_in_place(src_path, part, overwrite=True)
    os.replace(part, dst_path)
    return copied


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
            raise SystemExit(f"cannot resume from {filename}: {reason}") from None

    return loaded


def copy_atomically() -> None:
    """Replace ``PathManager.copy``, which fairseq uses for checkpoints alone."""
    PathManager.copy = staticmethod(_copy)


def explain_mismatches() -> None:
    """Wrap ``Trainer.load_checkpoint``."""
    Trainer.load_checkpoint = _or_say_why(Trainer.load_checkpoint)

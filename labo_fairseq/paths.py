"""Folders whose names fairseq would take for something else."""

from pathlib import Path
from typing import Sequence

from .errors import UserError

RUN = (":", "${", "\n")  # separates paths, begins a variable of a configuration, ends a line
DATA = (*RUN, ",")  # separates the files of fairseq-preprocess


def check_folder(folder: Path, special: Sequence[str]) -> Path:
    """``folder``.

    Raises:
        UserError: its absolute path holds one of the ``special`` strings, :data:`RUN` or :data:`DATA`.
    """
    whole = str(folder.resolve())
    for text in special:
        if text in whole:
            raise UserError(
                f"{whole!r} has {text!r} in it, which fairseq does not take literally: choose another folder"
            )
    return folder

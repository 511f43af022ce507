"""Let fairseq copy its checkpoints whole or not at all.

fairseq writes a checkpoint under a temporary name, but copies it to ``checkpoint_best.pt`` and ``checkpoint_last.pt``
in place. A kill in the middle of that leaves half of the file that the next start reads.
"""

import os
from typing import Any

from fairseq.file_io import PathManager

_copy_in_place = PathManager.copy


def _copy(src_path: str, dst_path: str, overwrite: bool = False) -> Any:
    if not overwrite or not os.path.isdir(os.path.dirname(os.path.abspath(dst_path))):  # or not on this file system
        return _copy_in_place(src_path, dst_path, overwrite=overwrite)
    part = f"{dst_path}.tmp"  # as fairseq names what it has not finished
    copied = _copy_in_place(src_path, part, overwrite=True)
    os.replace(part, dst_path)
    return copied


def copy_checkpoints_whole() -> None:
    """Replace ``PathManager.copy``, which fairseq uses for checkpoints alone."""
    PathManager.copy = staticmethod(_copy)

"""Let torch load fairseq's checkpoints with ``weights_only=True``, its default since 2.6.

Beside tensors and plain containers a fairseq checkpoint holds its options as an ``argparse.Namespace``, which only
carries attributes, and, after a training with ``--eval-bleu``, n-gram counts as numpy arrays (of floats where several
workers summed them). What these need is declared safe and nothing else is: a pickle that names any other class or
function is still refused.
"""

import argparse
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Tuple, Union

import numpy as np
import torch

from .errors import UserError

# By the names that pickles know it under: numpy 2 moved it, and its own name tells which numpy this is.
_RECONSTRUCT: Any = np.ndarray.__reduce__(np.zeros(0))[0]

SAFE: List[Union[Any, Tuple[Any, str]]] = [
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    type(np.dtype(np.int64)),
    type(np.dtype(np.float64)),
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
    (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
]


def allow_fairseq_checkpoints() -> None:
    """Register :data:`SAFE`; torch before 2.6 does not check unless it is asked to."""
    if torch.__version__ >= (2, 6):
        torch.serialization.add_safe_globals(SAFE)


def load_checkpoint(path: Path) -> Dict[str, Any]:
    """What a checkpoint of fairseq holds, on the CPU.

    Raises:
        UserError: it is damaged, or no checkpoint of fairseq.
    """
    allow_fairseq_checkpoints()
    try:
        # torch does not look at the checksums of the tensors
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged:
                raise zipfile.BadZipFile(f"{damaged} has another checksum")
        # without weights_only: that check is on where fairseq's checkpoints can pass it, from torch 2.6
        state = torch.load(path, map_location="cpu")
    except MemoryError:  # no fault of the file's
        raise
    # bytes that are no pickle raise anything, and torch's message recommends switching the check off
    except Exception as error:
        raise UserError(f"{path} cannot be read as a checkpoint: {type(error).__name__}") from None
    if not isinstance(state, dict) or "model" not in state:
        raise UserError(f"{path} is not a checkpoint of fairseq: it has no model")
    return state

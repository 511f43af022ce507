"""Let torch load fairseq's checkpoints with ``weights_only=True``, its default since 2.6.

Beside tensors and plain containers a fairseq checkpoint holds its options as an ``argparse.Namespace``, which only
carries attributes, and, after a training with ``--eval-bleu``, n-gram counts as numpy arrays (of floats where several
workers summed them). What these need is declared safe and nothing else is: a pickle that names any other class or
function is still refused.
"""

import argparse
from typing import Any, List, Tuple, Union

import numpy as np
import torch

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

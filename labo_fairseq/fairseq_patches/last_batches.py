"""Let fairseq 0.12.3 see every sentence.

It drops the last batch of a set, in training, validation and generation, where ``--required-batch-size-multiple``
(8 by default) does not divide the number of its sentences. fairseq 0.12.2 keeps it.
"""

from functools import wraps
from typing import Any, Sequence

import numpy as np
from fairseq.data import data_utils

_batch_by_size = data_utils.batch_by_size


@wraps(_batch_by_size)
def _all_batches(indices: Any, *args: Any, **kwargs: Any) -> Sequence[Any]:
    if not isinstance(indices, np.ndarray):
        indices = np.fromiter(indices, dtype=np.int64, count=-1)  # as fairseq does
    if not len(indices):
        return []
    batches = _batch_by_size(indices, *args, **kwargs)
    missing = indices[sum(map(len, batches)) :]
    # batches are consecutive parts of the indices, except with fixed shapes, where none is missing
    return [*batches, missing] if len(missing) else batches


def keep_last_batches() -> None:
    """Wrap ``batch_by_size``."""
    data_utils.batch_by_size = _all_batches

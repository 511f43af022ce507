"""Let fairseq's data sets find the names that numpy no longer has, and that fairseq 0.12 still asks it for.

Without ``numpy.compat`` no data set can be made of one sentence per sample (``--sample-break-mode eos``, and the texts
that a language model is given from Python), nor one with ``--num-batch-buckets``.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
from fairseq.data import data_utils, language_pair_dataset, token_block_dataset


class _OlderNumpy:
    """numpy, for the modules that are given it in its place; other programs see numpy as it is."""

    int = int
    compat = SimpleNamespace(long=int)

    @staticmethod
    def percentile(values: Any, percentages: Any, interpolation: Any) -> Any:
        """With the argument that is called ``method`` now."""
        return np.percentile(values, percentages, method=interpolation)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def restore_numpy_names() -> None:
    """Replace ``np`` in the modules of fairseq that need it, where numpy is too new for them."""
    if np.lib.NumpyVersion(np.__version__) >= "1.24.0":
        for module in (data_utils, language_pair_dataset, token_block_dataset):
            module.np = _OlderNumpy()

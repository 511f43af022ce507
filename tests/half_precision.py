"""What an older torch lacks on a CPU."""

import pytest
import torch


def skip_without_product(dtype):
    """Skip a test that multiplies matrices of a ``dtype`` that this torch has no product of."""
    if dtype == torch.float16 and torch.__version__ < "2.1":
        pytest.skip("this torch has no float16 matrix product on the CPU")

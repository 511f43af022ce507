"""Let torch load fairseq's checkpoints with ``weights_only=True``, its default since 2.6.

Beside tensors and plain containers a fairseq checkpoint holds its options as an ``argparse.Namespace``.
That class is declared safe (it only carries attributes) and nothing else is: a pickle that names any
other class or function is still refused.
"""

import argparse

import torch

SAFE_CLASSES = [argparse.Namespace]


def allow_fairseq_checkpoints() -> None:
    """Register :data:`SAFE_CLASSES`; torch before 2.5 has neither the check nor the register."""
    register = getattr(torch.serialization, "add_safe_globals", None)
    if register is not None:
        register(SAFE_CLASSES)

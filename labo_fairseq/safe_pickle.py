"""What a pickle may ask for where a checkpoint of fairseq is read: tensors, plain containers, numbers of numpy.

A pickle names functions and calls them. These are the names that fairseq's checkpoints hold; a pickle that names any
other one is refused before that is looked up. ``Unpickler`` and ``load`` make this module a ``pickle_module`` of
``torch.load``, for torch before 2.6; from then on torch's own restricted unpickler takes :data:`SAFE`.

numpy is not let near the file. A dtype takes its flags from a pickle, so that a forged one makes an array of object
pointers out of any bytes. Stand-ins under numpy's names check what they are given, and fill plain arrays of numbers.
"""

import argparse
import codecs
import pickle
import re
from collections import OrderedDict
from typing import Any, BinaryIO, Dict, Tuple

import numpy as np
import torch


class ForbiddenError(Exception):
    """The pickle asks for something else; the message is its name."""


class NumberType:
    """In place of a ``numpy.dtype``: of booleans or numbers, nothing else."""

    def __init__(self, name: str, *_: Any) -> None:
        if not (isinstance(name, str) and re.fullmatch(r"b1|[iu][1248]|f[248]", name)):
            raise ForbiddenError(f"numpy.dtype({name!r})")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Tuple) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise ForbiddenError("numpy.dtype with a forged state")
        self.dtype = self.dtype.newbyteorder(order)

    def read(self, content: bytes) -> np.ndarray:
        """The numbers in these bytes."""
        if not isinstance(content, bytes):
            raise ForbiddenError("numpy.ndarray without bytes")
        return np.frombuffer(content, self.dtype)


class Numbers(np.ndarray):
    """In place of a ``numpy.ndarray``, and saved as one."""

    def __new__(cls) -> "Numbers":
        return super().__new__(cls, 0)

    def __setstate__(self, state: Tuple) -> None:
        _, shape, kind, fortran, content = state
        if type(kind) is not NumberType:
            raise ForbiddenError("numpy.ndarray with a forged dtype")
        values = kind.read(content).reshape(shape, order="F" if fortran else "C")
        super().__setstate__((1, values.shape, values.dtype, bool(fortran), content))

    def __reduce__(self) -> Tuple:
        return self.view(np.ndarray).__reduce__()


def _reconstruct(*_: Any) -> Numbers:
    return Numbers()


def _scalar(kind: NumberType, content: bytes) -> np.generic:
    if type(kind) is not NumberType:
        raise ForbiddenError("numpy.core.multiarray.scalar of an object")
    return kind.read(content)[0]


#: name in a pickle → what it gets
SAFE: Dict[str, Any] = {
    "argparse.Namespace": argparse.Namespace,
    "numpy.dtype": NumberType,
    "numpy.ndarray": Numbers,
    # numpy 2 moved them
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
}

# what torch's own unpickler knows, as far as checkpoints of fairseq need it
_PLAIN: Dict[str, Any] = {
    "_codecs.encode": codecs.encode,  # bytes
    "builtins.set": set,
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
}
_ALLOWED = {**_PLAIN, **SAFE}
_WITH_STATE = (OrderedDict, argparse.Namespace, NumberType, Numbers)


# the one in Python: that in C lets a pickle set attributes of the very classes and functions that it names
class Unpickler(pickle._Unpickler):
    """Knows the names above alone, and gives a state to instances of these classes alone."""

    def find_class(self, module: str, name: str) -> Any:
        # as the unpickler of Python does: protocol 2 writes the names of Python 2
        if module == "__builtin__":
            module = "builtins"
        try:
            return _ALLOWED[f"{module}.{name}"]
        except KeyError:
            raise ForbiddenError(f"{module}.{name}") from None

    def load_build(self) -> None:
        if type(self.stack[-2]) not in _WITH_STATE:
            raise ForbiddenError(f"a state for {type(self.stack[-2]).__name__}")
        super().load_build()

    dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}  # noqa: RUF012  as in pickle


def load(file: BinaryIO, **options: Any) -> Any:
    """One pickle of ``file``."""
    return Unpickler(file, **options).load()

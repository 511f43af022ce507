"""What a pickle may ask for where a checkpoint of fairseq is read: tensors, plain containers, numbers of numpy.

A pickle names functions and calls them. These are the names that fairseq's checkpoints hold; a pickle that names any
other one is refused before that is looked up. ``Unpickler`` and ``load`` make this module a ``pickle_module`` of
``torch.load``; since torch 2.6, torch's own restricted unpickler takes :data:`SAFE` first.

numpy is not let near the file. A dtype takes its flags from a pickle, so that a forged one makes an array of object
pointers out of any bytes. Stand-ins under numpy's names check what they are given, and fill plain arrays of numbers.

Nor are the classes of fairseq and OmegaConf that older releases wrote: meters, dictionaries, choices, configurations.
A :class:`Record` takes the place of each instance, and :func:`plain` makes of it what fairseq needs.
"""

import argparse
import codecs
import pickle
import re
from collections import OrderedDict
from typing import Any, BinaryIO, ClassVar, Dict, List, Optional, Tuple, Type

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
        super().__setstate__((1, values.shape, values.dtype, bool(fortran), content))  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        return self.view(np.ndarray).__reduce__()


def _reconstruct(*_: Any) -> Numbers:
    return Numbers()


def _scalar(kind: NumberType, content: bytes) -> np.generic:
    if type(kind) is not NumberType:
        raise ForbiddenError("numpy.core.multiarray.scalar of an object")
    return kind.read(content)[0]


def _mapping(*_: Any) -> Dict:
    """In place of a ``collections.defaultdict``, whose default would be a record."""
    return {}


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
    "collections.defaultdict": _mapping,
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
}
_ALLOWED = {**_PLAIN, **SAFE}


class Record:
    """In place of an instance of a class that is not looked up: what it was made with, and its state. It does nothing.

    One subclass for every name. As an instance it also stands for what a class or ``typing`` makes when it is called.
    """

    #: of the class, such as ``fairseq.meters.AverageMeter``
    name: str
    arguments: Tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> "Record":
        record = super().__new__(cls)
        record.arguments = arguments
        record.state = {}
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


# What fairseq's releases wrote in addition to plain values. From 0.5 to 0.9: meters. Since 0.10: configurations of
# OmegaConf, whose metadata name types, and the dictionaries in the state of a task.
_RECORDED_PACKAGES = ("fairseq", "omegaconf")
_RECORDED_TYPES = (
    "bool",
    "bytes",
    "complex",
    "dict",
    "float",
    "int",
    "list",
    "long",
    "object",
    "str",
    "tuple",
    "type",
    "unicode",
)
_records: Dict[str, Type[Record]] = {}


def _record(module: str, name: str) -> Optional[Type[Record]]:
    """What stands for a class, or None where it is none of those that fairseq wrote."""
    if not (
        module.split(".")[0] in _RECORDED_PACKAGES
        or module == "typing"
        or (module == "builtins" and name in _RECORDED_TYPES)
        or (module, name) == ("_operator", "getitem")  # List[int] is typing.List and int, joined by it
    ):
        return None
    whole = f"{module}.{name}"
    if whole not in _records:
        _records[whole] = type(name, (Record,), {"name": whole})
    return _records[whole]


def plain(value: Any) -> Any:
    """``value``, which this module has read, with something that fairseq understands in place of every record.

    * a node or a container of OmegaConf: what it holds; interpolations stay strings
    * ``Dictionary``: fairseq's, with the symbols and counts of the file
    * a choice (an ``Enum``): its value
    * any other object: ``argparse.Namespace`` of its attributes; a class: its name
    """
    return _Plain().of(value)


class _Plain:
    def __init__(self) -> None:
        self._known: Dict[int, Any] = {}  # by id: a checkpoint names many things twice
        self._kept: List[Any] = []  # or an id could come to mean another object

    def of(self, value: Any) -> Any:
        if isinstance(value, type) and issubclass(value, Record):
            return value.name
        if not isinstance(value, (dict, list, tuple, argparse.Namespace, Record)):
            return value
        if id(value) not in self._known:
            self._kept.append(value)
            self._known[id(value)] = value  # for a container that holds itself
            self._known[id(value)] = self._made_of(value)
        return self._known[id(value)]

    def _made_of(self, value: Any) -> Any:
        if isinstance(value, Record):
            return self._of_record(value)
        if isinstance(value, tuple):
            return tuple(map(self.of, value))
        if isinstance(value, list):
            value[:] = map(self.of, value)
            return value
        items = value if isinstance(value, dict) else vars(value)
        for key in list(items):
            items[key] = self.of(items[key])
        return value

    def _of_record(self, record: Record) -> Any:
        kind = record.name.rpartition(".")[-1]
        if kind == "Dictionary":
            return _dictionary(self.of(record.state))
        if isinstance(record.state, dict) and record.name.startswith("omegaconf."):
            for held in ("_content", "_val"):
                if held in record.state:
                    return self.of(record.state[held])
        if len(record.arguments) == 1 and not record.state:
            return self.of(record.arguments[0])
        return argparse.Namespace(**self.of(record.state)) if isinstance(record.state, dict) else record.name


def _dictionary(state: Any) -> Any:
    """fairseq's ``Dictionary`` of a pickled state, of which nothing is taken but words and numbers."""
    from fairseq.data import Dictionary  # only checkpoints that hold one are worth the seconds

    symbols, counts = state.get("symbols"), state.get("count")
    if not (
        isinstance(symbols, list)
        and isinstance(counts, list)
        and len(symbols) == len(counts)
        and all(type(symbol) is str for symbol in symbols)
        and all(isinstance(count, int) for count in counts)
    ):
        raise ForbiddenError("fairseq.data.Dictionary with a forged state")
    dictionary = Dictionary()
    for name, default in vars(dictionary).items():
        if type(state.get(name)) is type(default) and isinstance(default, (int, str)):
            setattr(dictionary, name, state[name])
    dictionary.symbols, dictionary.count = symbols, counts
    # a word that stands twice has the place that the file says
    indices = state.get("indices", {})
    dictionary.indices = {
        symbol: indices[symbol] if type(indices.get(symbol)) is int else number for number, symbol in enumerate(symbols)
    }
    return dictionary


_WITH_STATE = (OrderedDict, argparse.Namespace, NumberType, Numbers)


# the one in Python: that in C lets a pickle set attributes of the very classes and functions that it names
class Unpickler(pickle._Unpickler):
    """Knows the names above alone, and gives a state to instances of these classes alone."""

    def find_class(self, module: str, name: str) -> Any:
        # as the unpickler of Python does: protocol 2 writes the names of Python 2
        if module == "__builtin__":
            module = "builtins"
        allowed = _ALLOWED.get(f"{module}.{name}") or _record(module, name)
        if allowed is None:
            raise ForbiddenError(f"{module}.{name}")
        return allowed

    # typeshed knows the one in C alone
    stack: List[Any]

    def load_build(self) -> None:
        record = isinstance(self.stack[-2], Record)
        if not record and type(self.stack[-2]) not in _WITH_STATE:
            raise ForbiddenError(f"a state for {type(self.stack[-2]).__name__}")
        super().load_build()  # type: ignore[misc]

    dispatch: ClassVar[Dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}


def load(file: BinaryIO, **options: Any) -> Any:
    """One pickle of ``file``."""
    return Unpickler(file, **options).load()

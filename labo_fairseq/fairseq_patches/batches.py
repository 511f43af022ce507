"""Let fairseq see every sentence, and let the thread that reads its batches ahead end before Python does.

fairseq 0.12.3 drops the last batch of a set, in training, validation and generation, where
``--required-batch-size-multiple`` (8 by default) does not divide the number of its sentences. fairseq 0.12.2 keeps it.

The thread is a daemon: where a training stops within an epoch, Python tears it from whatever it is at. If that is in
torch, the process aborts ("terminate called without an active exception"), and with another status than its own.
"""

import atexit
import time
from contextlib import suppress
from functools import wraps
from queue import Empty
from threading import Event
from typing import Any, Iterable, Iterator, Sequence
from weakref import WeakSet

import numpy as np
from fairseq.data import data_utils
from fairseq.data.iterators import BackgroundConsumer

_batch_by_size = data_utils.batch_by_size

_PATIENCE = 10  # seconds, for the threads

_end = Event()
_readers: "WeakSet[BackgroundConsumer]" = WeakSet()
_init = BackgroundConsumer.__init__


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


@wraps(_init)
def _noted(self: BackgroundConsumer, queue: Any, source: Iterable, *rest: Any) -> None:
    _init(self, queue, _until_the_end(source), *rest)
    _readers.add(self)


def _until_the_end(source: Iterable) -> Iterator:
    for item in source:
        if _end.is_set():
            return
        yield item


def _end_readers() -> None:
    _end.set()
    deadline = time.monotonic() + _PATIENCE
    for reader in list(_readers):
        while reader.is_alive() and time.monotonic() < deadline:
            with suppress(Empty):
                reader._queue.get(timeout=0.05)  # it may wait for room


def keep_last_batches() -> None:
    """Wrap ``batch_by_size``."""
    data_utils.batch_by_size = _all_batches


def end_readers() -> None:
    """Replace the making of ``BackgroundConsumer``, and end them at the exit of the process."""
    BackgroundConsumer.__init__ = _noted
    atexit.register(_end_readers)

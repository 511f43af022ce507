"""Let the thread that reads fairseq's batches ahead end before Python does.

It is a daemon: where a training stops within an epoch, Python tears it from whatever it is at. If that is in torch, the
process aborts ("terminate called without an active exception"), and with another status than its own.
"""

import atexit
import time
from contextlib import suppress
from functools import wraps
from queue import Empty
from threading import Event
from typing import Any, Iterable, Iterator
from weakref import WeakSet

from fairseq.data.iterators import BackgroundConsumer

_PATIENCE = 10  # seconds

_end = Event()
_readers: "WeakSet[BackgroundConsumer]" = WeakSet()
_init = BackgroundConsumer.__init__


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


def end_readers() -> None:
    """Replace the making of ``BackgroundConsumer``, and end them at the exit of the process."""
    BackgroundConsumer.__init__ = _noted
    atexit.register(_end_readers)

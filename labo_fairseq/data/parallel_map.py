"""Work on streams too long for memory: in chunks, in order, on several processes."""

import os
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Callable, Deque, Iterable, Iterator, List, Sequence, Tuple, TypeVar

from tqdm import tqdm

from ..errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 256  # items that a process gets at a time
_AHEAD = 4  # chunks a process that wait to be worked on, or to be fetched
_FEW = 4  # chunks that are done before processes have started
_SMALL = 1 << 22  # bytes of text, the same


def mapped(
    function: Callable[[List[Item]], List[Result]], items: Iterable[Item], workers: int, what: str
) -> Iterator[Result]:
    """What ``function`` makes of ``items``, chunk by chunk and in their order, with a progress bar.

    Only a few chunks are in memory at a time. ``function`` is called in ``workers`` processes, or in this one for few
    items; it may return fewer results than it got items.

    Raises:
        UserError: one of these processes was killed.
    """
    waiting = chunks(items)
    first = list(islice(waiting, _FEW))
    if len(first) < _FEW:
        with tqdm(desc=what, unit=" lines") as bar:
            for chunk in first:
                yield from function(chunk)
                bar.update(len(chunk))
        return
    pending: Deque[Tuple[int, Future]] = deque()
    with _processes(workers, what) as pool, tqdm(desc=what, unit=" lines") as bar:
        for chunk in chain(first, waiting):
            pending.append((len(chunk), pool.submit(function, chunk)))
            if len(pending) > _AHEAD * workers:
                yield from _next(pending, bar)
        while pending:
            yield from _next(pending, bar)


def map_whole(function: Callable[[Item], Result], items: Sequence[Item], workers: int, what: str) -> Iterator[Result]:
    """What ``function`` makes of ``items``, each of which is work for a while, such as a file; in their order.

    One worker is this process itself.

    Raises:
        UserError: one of several was killed.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        yield from map(function, items)
        return
    with _processes(workers, what) as pool:
        yield from pool.map(function, items)


def workers_for(files: Iterable[Path], workers: int) -> int:
    """``workers``, or 1 where the work on ``files`` is done before processes have started."""
    return workers if sum(path.stat().st_size for path in files) > _SMALL else 1


@contextmanager
def _processes(workers: int, what: str) -> Iterator[ProcessPoolExecutor]:
    try:
        with ProcessPoolExecutor(workers, get_context("spawn"), _follow_parent) as pool:
            yield pool
    except BrokenProcessPool:
        raise UserError(f"{what}: a process was killed, possibly out of memory: use fewer --workers") from None


def chunks(items: Iterable[Item], size: int = _CHUNK) -> Iterator[List[Item]]:
    """Lists of ``size`` items, the last one shorter."""
    iterator = iter(items)
    chunk = list(islice(iterator, size))
    while chunk:
        yield chunk
        chunk = list(islice(iterator, size))


def _follow_parent() -> None:
    """End with the parent process, even where that is killed; the queue between them would be waited on forever."""

    def follow() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=follow, daemon=True).start()


def _next(pending: Deque[Tuple[int, Future]], bar: tqdm) -> List[Result]:
    size, job = pending.popleft()
    results = job.result()
    bar.update(size)
    return results

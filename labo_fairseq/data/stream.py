"""Work on streams too long for memory: in chunks, in order, on several processes."""

from collections import deque
from itertools import islice
from multiprocessing import get_context
from typing import Any, Callable, Deque, Iterable, Iterator, List, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 256  # items that a process gets at a time
_AHEAD = 4  # chunks a process that wait to be worked on, or to be fetched


def mapped(
    function: Callable[[List[Item]], List[Result]], items: Iterable[Item], workers: int, what: str
) -> Iterator[Result]:
    """What ``function`` makes of ``items``, chunk by chunk and in their order, with a progress bar.

    Only a few chunks are in memory at a time. ``function`` is called in ``workers`` processes; it may
    return fewer results than it got items.
    """
    pending: Deque[Any] = deque()
    with get_context("spawn").Pool(workers) as pool, tqdm(desc=what, unit=" lines") as bar:
        for chunk in chunks(items):
            pending.append((len(chunk), pool.apply_async(function, (chunk,))))
            if len(pending) > _AHEAD * workers:
                yield from _next(pending, bar)
        while pending:
            yield from _next(pending, bar)


def chunks(items: Iterable[Item], size: int = _CHUNK) -> Iterator[List[Item]]:
    """Lists of ``size`` items, the last one shorter."""
    iterator = iter(items)
    chunk = list(islice(iterator, size))
    while chunk:
        yield chunk
        chunk = list(islice(iterator, size))


def _next(pending: Deque[Any], bar: tqdm) -> List[Any]:
    size, job = pending.popleft()
    results = job.get()
    bar.update(size)
    return results

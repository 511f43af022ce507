"""A download over HTTP that goes on where an earlier one was cut."""

from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Optional, Tuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

_TIMEOUT = 30  # seconds without a byte
_PIECE = 1 << 16


class MirrorError(Exception):
    """This address does not give the file; another one may."""


def download(url: str, path: Path, label: str, size: Optional[int] = None) -> None:
    """Bring ``path`` to all the bytes that ``url`` serves; those that it holds already are not asked for again.

    ``label`` is what the progress bar says.
    A connection that breaks is taken up again as long as each brings something.

    Raises:
        MirrorError: the address fails, or its file is not of ``size`` bytes; what has arrived stays in ``path``.
        OSError: ``path`` cannot be written.
    """
    while True:
        before = _size(path)
        try:
            return _receive(url, path, label, size)
        except MirrorError:
            if _size(path) <= before:
                raise


def _receive(url: str, path: Path, label: str, size: Optional[int]) -> None:
    """One connection's worth of :func:`download`."""
    response, start, total = _open(url, _size(path))
    with response:
        if size is not None and total is not None and total != size:
            raise MirrorError(f"offers {total} bytes, expected {size}")
        bar = tqdm(desc=label, total=total or size, initial=start, unit="B", unit_scale=True, unit_divisor=1024)
        with bar, open(path, "ab") as file:
            file.truncate(start)
            while True:
                try:
                    piece = response.read(_PIECE)
                except (OSError, HTTPException) as error:
                    raise MirrorError(f"broke off ({_reason(error)})") from None
                if not piece:
                    break
                # outside of the try: a full disk is no fault of the mirror's
                file.write(piece)
                bar.update(len(piece))
    arrived = _size(path)
    if total is not None and arrived != total:
        raise MirrorError(f"broke off at {arrived} of {total} bytes")


def _open(url: str, start: int) -> Tuple[HTTPResponse, int, Optional[int]]:
    """Response to a request from byte ``start`` on, the byte that it starts at, the length of the whole file."""
    headers = {"User-Agent": "labo-fairseq"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urlopen(Request(url, headers=headers), timeout=_TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # nothing lies behind ``start``: the file is whole, or another one
            return _open(url, 0)
        raise MirrorError(f"HTTP {error.code} {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise MirrorError(_reason(error)) from None
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise MirrorError("answers with a web page")
    length = response.headers.get("Content-Length")
    if response.status != 206:
        return response, 0, int(length) if length else None
    return response, start, start + int(length) if length else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__

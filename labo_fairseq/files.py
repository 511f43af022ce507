"""Files and directories: those of the project, written atomically, locked, and named as fairseq can read them."""

import fcntl
import hashlib
import json
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, List, Sequence

from .errors import UserError

_PACKAGE = Path(__file__).resolve().parent

#: what fairseq does not take literally in the path of a run: it separates paths, begins a variable of a configuration,
#: or ends a line
SPECIAL_IN_RUN = (":", "${", "\n")
#: the same in the path of data: a comma separates the files of fairseq-preprocess
SPECIAL_IN_DATA = (*SPECIAL_IN_RUN, ",")


def configs() -> Path:
    """The directory ``configs``: inside an installed package, beside the package in a checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.exists() else _PACKAGE.parent / "configs"


def methods() -> List[str]:
    """Names of the training methods: the files in ``configs/criterion``."""
    return sorted(path.stem for path in (configs() / "criterion").glob("*.yaml"))


def shipped_corpora() -> List[str]:
    """Names of the corpora that come with the package: the files in ``configs/corpora``."""
    return sorted(path.stem for path in (configs() / "corpora").glob("*.yaml"))


def shipped_datasets() -> List[str]:
    """Names of the data sets of images: the files in ``configs/datasets``."""
    return sorted(path.stem for path in (configs() / "datasets").glob("*.yaml"))


def image_methods() -> List[str]:
    """Names of the training methods for images: the modules of ``images/methods``."""
    names = (path.stem for path in (_PACKAGE / "images" / "methods").glob("*.py"))
    return sorted(name for name in names if name not in ("__init__", "base"))


def check_folder(folder: Path, special: Sequence[str]) -> Path:
    """``folder``.

    Raises:
        UserError: its absolute path holds one of the ``special`` strings, :data:`SPECIAL_IN_RUN` or
            :data:`SPECIAL_IN_DATA`.
    """
    path = str(folder.resolve())
    for text in special:
        if text in path:
            raise UserError(
                f"{path!r} has {text!r} in it, which fairseq does not take literally: choose another folder"
            )
    return folder


def make_folder(folder: Path, exist_ok: bool = True) -> None:
    """Make ``folder`` and those above it.

    Raises:
        UserError: the file system has no place for it, such as ``/proc``; it may refuse otherwise with an OSError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except FileNotFoundError:
        raise UserError(f"the folder {folder} cannot be made there: choose another folder") from None


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder at ``path`` until the block ends; what a killed process left there is removed first.

    The caller sees to it that no other process is at work there, see :func:`locked`.
    """
    shutil.rmtree(path, ignore_errors=True)
    make_folder(path, exist_ok=False)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def atomic_directory(path: Path, check: Callable[[], None]) -> Iterator[Path]:
    """A temporary folder that takes the place of ``path`` when the block ends without an exception.

    The caller sees to it that no other process is at work there, see :func:`locked`.

    Args:
        check: raises where ``path`` must not be replaced; called before the block and, hours later, after it.
    """
    check()
    # a link to another disk stays one
    path = path.resolve()
    with scratch_folder(path.with_name(f".{path.name}.part")) as work:
        yield work
        check()
        if path.exists():
            shutil.rmtree(path)
        os.replace(work, path)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary name for ``path``, with its ending, renamed when the block ends without an exception."""
    make_folder(path.parent)
    work = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield work
        os.replace(work, path)
    finally:
        if work.exists():
            work.unlink()


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """One line per string, UTF-8, ``\\n`` whatever the platform."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)


def read_lines(path: Path) -> Iterator[str]:
    """Lines without their ``\\n``; U+2028 and its like do not end one."""
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.rstrip("\r\n")


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file, read in pieces."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON; ``path`` is complete or absent."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """``folder``, made if need be, for this process alone; the lock dies with the process.

    A folder that was made here is removed if the block fails and has put nothing into it.

    Raises:
        UserError: another process has it, and ``wait`` is false.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    lock = folder / ".lock"
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(f"another process is at work in {folder}: wait for it, or choose another folder") from None
        if not (lock.exists() and os.path.samestat(os.stat(lock), os.fstat(file.fileno()))):
            # the process that had it has failed and removed it
            with locked(folder, wait):
                yield
            return
        try:
            yield
        except BaseException:
            _remove_empty(made, lock)
            raise


def _remove_empty(folders: Sequence[Path], lock: Path) -> None:
    """Remove nested ``folders``, the innermost first, where nothing but its ``lock`` is left in them."""
    if folders and os.listdir(folders[0]) == [lock.name]:
        lock.unlink()
        with suppress(OSError):  # of the first that another process uses
            for folder in folders:
                folder.rmdir()

"""Files and folders that are either whole or not there."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterable, Iterator


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``path`` when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    work.chmod(0o755)
    try:
        yield work
        if path.exists():
            shutil.rmtree(path)
        os.replace(work, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name for ``path``, with its ending, renamed when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield work
        os.replace(work, path)
    finally:
        if work.exists():
            work.unlink()


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """One line a string, UTF-8, ``\\n`` whatever the platform."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)


def read_lines(path: Path) -> Iterator[str]:
    """Lines without their ``\\n``; U+2028 and its like do not end one."""
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.rstrip("\r\n")

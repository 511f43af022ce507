"""Files inside tar.gz archives, read as a stream: nothing is unpacked."""

import gzip
import tarfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Iterator

from ..errors import UserError


@contextmanager
def open_member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    """The file ``name`` of a tar.gz archive, for reading from front to back.

    Raises:
        UserError: the archive is damaged or no archive, also while the block reads; or it has no such file.
    """
    names = (name, f"./{name}")
    try:
        with tarfile.open(archive, "r:gz") as tar:
            # getmember would read the archive to its end, and then all over again
            member = next((member for member in tar if member.isfile() and member.name in names), None)
            file = tar.extractfile(member) if member else None
            if file is None:
                raise UserError(f"{archive} holds no {name}: it is not the corpus's archive, or an incomplete one")
            with file:
                yield file
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{archive} is damaged or no tar.gz archive ({error}): delete it and get it again") from None

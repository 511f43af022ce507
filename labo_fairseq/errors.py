"""What the command line shows without a traceback."""

import errno
from typing import Optional

_AGAIN = "make room, and the same command goes on from here"
_CHOOSE = "choose another folder, or change its permissions"
_DISK = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _AGAIN),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _CHOOSE),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG), "choose another name"),
    errno.EIO: "the disk or its connection fails; once it works, the same command goes on from here",
}


class UserError(Exception):
    """A mistake or a circumstance that the user can mend: the message says what, where and how."""


def advice(error: OSError) -> Optional[str]:
    """What the user can do where the file system refuses what no program can mend; None where it is something else."""
    return _DISK.get(error.errno)

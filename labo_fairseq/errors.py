"""What the command line shows without a traceback."""

import errno
from typing import Optional, Union

_AGAIN = "free some space and re-run the same command to resume"
_CHOOSE = "choose another folder, or change its permissions"
_DISK = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _AGAIN),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _CHOOSE),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG), "choose another name"),
    errno.EIO: "the disk or its connection fails; once it works, re-run the same command to resume",
}


class UserError(Exception):
    """A mistake or a circumstance that the user can correct: the message says what, where and how."""


def told(error: Union[UserError, OSError]) -> Optional[str]:
    """One-line message for the user; None if the OSError is not one of the file system."""
    if isinstance(error, UserError):
        return str(error)
    advice = None if error.errno is None else _DISK.get(error.errno)
    where = f"{error.filename}: " if error.filename else ""
    return advice and f"{where}{error.strerror}; {advice}"

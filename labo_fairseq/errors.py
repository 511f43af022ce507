"""The one exception that the command line shows without a traceback."""


class UserError(Exception):
    """A mistake or a circumstance that the user can mend: the message says what, where and how."""

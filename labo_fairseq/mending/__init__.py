"""What this plugin mends in fairseq itself, for every training that it is a part of; one fault a module."""

from .copies import copy_checkpoints_whole
from .loading import guard_loading
from .misfits import explain_checkpoints_that_do_not_fit
from .prefetching import end_readers_in_time
from .resumption import go_on_unbroken


def mend_fairseq() -> None:
    """Replace the functions at fault; to be called once in a process, before fairseq begins to work."""
    guard_loading()
    copy_checkpoints_whole()
    explain_checkpoints_that_do_not_fit()
    go_on_unbroken()
    end_readers_in_time()

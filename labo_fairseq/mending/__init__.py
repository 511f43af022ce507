"""What this plugin mends in fairseq itself, for every training that it is a part of; one fault a module."""

from .checkpoint_state import save_all_state
from .copies import copy_checkpoints_whole
from .cpu_workers import train_on_cpus
from .loading import guard_loading
from .misfits import explain_checkpoints_that_do_not_fit
from .prefetching import end_readers_in_time
from .resumption import go_on_unbroken
from .validation_metric import choose_models_by_one_metric
from .whole_sets import keep_last_batches


def mend_fairseq() -> None:
    """Replace the functions at fault; to be called once in a process, before fairseq begins to work."""
    guard_loading()
    copy_checkpoints_whole()
    explain_checkpoints_that_do_not_fit()
    go_on_unbroken()
    end_readers_in_time()
    train_on_cpus()
    keep_last_batches()
    choose_models_by_one_metric()
    save_all_state()  # wraps what comes before, which takes values of another metric out of a checkpoint

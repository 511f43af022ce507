"""What this plugin patches in fairseq itself, for every training that it is a part of; one subject per module."""

from .batches import end_readers, keep_last_batches
from .checkpoint_files import copy_atomically, explain_mismatches
from .command_line import remember_arguments
from .cpu_workers import train_on_cpus
from .exact_resume import resume_exactly, save_all_state
from .pretrained_tasks import load_pretrained_tasks
from .removed_numpy_names import restore_numpy_names
from .safe_checkpoint_loading import load_safely
from .validation_metric import choose_models_by_one_metric


def apply_patches() -> None:
    """Replace the functions at fault; to be called once per process, before fairseq begins to work."""
    remember_arguments()
    load_safely()
    copy_atomically()
    explain_mismatches()
    resume_exactly()
    end_readers()
    train_on_cpus()
    keep_last_batches()
    load_pretrained_tasks()
    restore_numpy_names()
    choose_models_by_one_metric()
    save_all_state()  # wraps what comes before, which takes values of another metric out of a checkpoint

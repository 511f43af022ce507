"""What this plugin patches in fairseq itself, for every training that it is a part of; one fault per module."""

from .checkpoint_files import copy_atomically, explain_mismatches
from .checkpoint_state import save_all_state
from .command_line import remember_arguments
from .cpu_workers import train_on_cpus
from .dataloader_shutdown import end_readers
from .exact_resume import resume_exactly
from .last_batches import keep_last_batches
from .masked_lm_dictionary import load_masked_lm_dictionaries
from .pretrained_bart import name_options_of_pretrained_bart
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
    name_options_of_pretrained_bart()
    load_masked_lm_dictionaries()
    choose_models_by_one_metric()
    save_all_state()  # wraps what comes before, which takes values of another metric out of a checkpoint

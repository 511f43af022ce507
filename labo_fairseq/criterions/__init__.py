"""fairseq's view of the losses: importing this package registers the criterions."""

from ..fairseq_loading import guard_loading
from ..resuming import explain_checkpoints_that_do_not_fit
from ..whole_copies import copy_checkpoints_whole
from . import confidence_penalty, distillation, focal, labo  # noqa: F401

guard_loading()
copy_checkpoints_whole()
explain_checkpoints_that_do_not_fit()

"""fairseq's view of the losses: importing this package registers the criterions."""

from . import labo  # noqa: F401
from .checkpoints import allow_fairseq_checkpoints

allow_fairseq_checkpoints()

"""fairseq's view of the losses: importing this package registers the criterions."""

from ..mending import mend_fairseq
from . import confidence_penalty, distillation, focal, labo  # noqa: F401

mend_fairseq()

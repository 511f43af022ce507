"""fairseq's view of the losses: importing this package registers the criterions."""

from ..fairseq_patches import apply_patches
from . import confidence_penalty, distillation, focal, labo  # noqa: F401
from .posterior_option import add_posterior_option

apply_patches()
add_posterior_option()

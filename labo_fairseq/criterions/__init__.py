"""fairseq's view of the losses: importing this package registers the criterions, those of every module in it."""

from importlib import import_module
from pkgutil import iter_modules

from ..fairseq_patches import apply_patches
from .posterior_option import add_posterior_option
from .short_training import warn_of_short_trainings

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

apply_patches()
add_posterior_option()
warn_of_short_trainings()

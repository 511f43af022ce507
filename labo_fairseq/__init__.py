"""LABO, learned label regularization, for fairseq.

The folder of this package is what ``fairseq-train --user-dir`` takes. The criterions register themselves as soon as
fairseq is there: at once where it has been imported, or when it will be. So either may be imported first, and a script
that only wants ``labo_fairseq.losses`` does not pay for fairseq, nor need it.
"""

import os
import sys
from typing import TYPE_CHECKING, Any, List

if TYPE_CHECKING:
    from .losses import LaboLoss, LinearCrossEntropyLoss, LinearLaboLoss

# fairseq compares it with --user-dir, which names this folder without links
__path__ = list(dict.fromkeys((*__path__, os.path.realpath(os.path.dirname(__file__)))))

__version__ = "0.2.0"
__all__ = ["LaboLoss", "LinearCrossEntropyLoss", "LinearLaboLoss"]


def __getattr__(name: str) -> Any:
    """The losses, imported when they are asked for: ``labo-fairseq user-dir`` does not wait for torch."""
    if name in __all__:
        from . import losses

        return getattr(losses, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> List[str]:
    return [*globals(), *__all__]


if "fairseq" in sys.modules:
    from . import criterions  # noqa: F401
else:
    from .registration import register_after_import

    register_after_import()

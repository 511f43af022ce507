"""LABO, learned label regularisation, for fairseq.

The folder of this package is what ``fairseq-train --user-dir`` takes. The criterions register themselves as soon as
fairseq is there: at once where it has been imported, or when it will be. So either may be imported first, and a script
that only wants ``labo_fairseq.losses`` does not pay for fairseq, nor need it.
"""

import os
import sys

# fairseq compares it with --user-dir, which names this folder without links
__path__ = list(dict.fromkeys((*__path__, os.path.realpath(os.path.dirname(__file__)))))

__version__ = "0.2.0"

if "fairseq" in sys.modules:
    from . import criterions  # noqa: F401
else:
    from .registration import register_after_import

    register_after_import()

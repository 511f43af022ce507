"""LABO, learned label regularisation, for fairseq.

The folder of this package is what ``fairseq-train --user-dir`` takes. fairseq imports it by name, so the
criterions register themselves when fairseq is the importer; a script that only wants
``labo_fairseq.losses`` does not pay for fairseq, nor need it.
"""

import sys

__version__ = "0.2.0"

if "fairseq" in sys.modules:
    from . import criterions  # noqa: F401

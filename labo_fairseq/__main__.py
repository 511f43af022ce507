"""``python -m labo_fairseq``: the same as ``labo-fairseq``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())

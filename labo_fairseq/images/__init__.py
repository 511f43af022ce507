"""Image classification with the methods of the paper's Tables 3 and 5; nothing in here imports fairseq."""

import re
from pathlib import Path

from ..files import shipped_datasets


def is_dataset(name: str) -> bool:
    """Whether ``name`` is a data set of images: one of ``configs/datasets``, or a YAML file that declares one.

    What tells it from the declaration of a corpus is its reader, or the mean of its channels.
    """
    if name in shipped_datasets():
        return True
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return False
    return re.search("^(mean|reader) *:", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE) is not None

"""Where the files lie that are part of the project but no code."""

from pathlib import Path
from typing import List

_PACKAGE = Path(__file__).resolve().parent


def configs() -> Path:
    """The folder ``configs``: inside an installed package, beside the package in a checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.exists() else _PACKAGE.parent / "configs"


def methods() -> List[str]:
    """Names of the training methods: the files in ``configs/criterion``."""
    return sorted(path.stem for path in (configs() / "criterion").glob("*.yaml"))

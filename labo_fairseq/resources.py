"""Where the files lie that are part of the project but no code."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def configs() -> Path:
    """The folder ``configs``: inside an installed package, beside the package in a checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.exists() else _PACKAGE.parent / "configs"

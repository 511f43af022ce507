"""A checkout of this repository where scripts have it hard, and an installer that takes no minutes."""

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HARD = 'it\'s a "très" $HOME `dir` $(touch executed)'

# Makes an environment of itself and notes what pip is to install, which .ci/run does for real; all else is Python.
_PYTHON = """#!/usr/bin/env bash
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip "*) printf '%s\\n' "${PIP_CONSTRAINT:-}" "$@" >>"$INSTALLED"; exit "${PIP_STATUS:-0}" ;;
    *'get_path("include")'*) echo "${HEADERS:-$("$REAL_PYTHON" "$@")}" ;;
    *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


def copy_checkout(folder):
    """A copy of what scripts need in ``folder / HARD``, and the variables to call them with."""
    checkout = folder / HARD
    for name in ("benchmarks", "configs", "constraints", "hydra_plugins", "labo_fairseq", "scripts"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, checkout)
    return checkout, {
        **fake_python(folder),
        "PYTHONPATH": str(checkout),  # where pip would have put it
        "CDPATH": str(folder) + os.pathsep + str(checkout),
    }


def fake_python(folder):
    """Variables for scripts: a Python that makes an environment of itself at once, written to ``folder``."""
    python = folder / "py'thon $x"
    python.write_text(_PYTHON, encoding="utf-8")
    python.chmod(0o755)
    return {"LABO_PYTHON": str(python), "REAL_PYTHON": sys.executable, "INSTALLED": str(folder / "installed")}

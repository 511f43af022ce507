"""Packages import one way: experiments → analysis → reporting → evaluation → data, and none of them back."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "labo_fairseq"
#: package → those of ours that nothing in it may import
ABOVE = {
    "losses": {"criterions", "data", "evaluation", "reporting", "analysis", "experiments"},
    "data": {"evaluation", "reporting", "analysis", "experiments"},
    "evaluation": {"reporting", "analysis", "experiments"},
    "reporting": {"analysis", "experiments"},
    "analysis": {"experiments"},
}


def imported(path):
    """Our packages that a module imports, at its top or later."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:  # from ..PACKAGE.module import, from .. import
            yield from [node.module.split(".")[0]] if node.module else [name.name for name in node.names]


@pytest.mark.parametrize("package", ABOVE)
def test_nothing_above_is_imported(package):
    modules = list((PACKAGE / package).rglob("*.py"))
    assert modules
    for path in modules:
        assert not ABOVE[package] & set(imported(path)), path


def test_tables_do_not_know_the_scheduler():
    text = (PACKAGE / "experiments" / "results.py").read_text(encoding="utf-8")
    assert "scheduler" not in text

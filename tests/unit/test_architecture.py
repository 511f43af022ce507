"""The packages import what docs/architecture.md says, and nothing else."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "labo_fairseq"
PACKAGES = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def documented():
    """Package → the packages that its row of the table names."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", page, re.MULTILINE)
    return {package: re.findall(r"`(\w+)`", imports) for package, imports in rows}


def imported(package):
    """The other packages that the modules of a package import."""
    for path in (PACKAGE / package).rglob("*.py"):
        here = path.relative_to(PACKAGE).parent.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                above = here[: len(here) - node.level + 1]
                for name in [node.module] if node.module else [alias.name for alias in node.names]:
                    top = [*above, *name.split(".")][0]
                    if top in PACKAGES - {package}:
                        yield top


def test_the_table_names_every_package():
    assert set(documented()) == PACKAGES


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_package_imports_what_the_table_says(package):
    assert set(imported(package)) <= set(documented()[package])


def test_dependencies_point_one_way():
    above = []
    for package, imports in documented().items():
        assert set(imports) <= set(above)
        above.append(package)


def test_tables_do_not_know_the_scheduler():
    assert "scheduler" not in (PACKAGE / "experiments" / "results.py").read_text(encoding="utf-8")

"""What distinguishes finished runs beyond their scores: one module per analysis, with its numbers, tables and figures.

A module whose ``ANALYSIS`` is an :class:`~.base.Analysis` is a subcommand of ``labo-fairseq analyse`` and a section of
the report; nothing else is edited to add one.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Dict

from .base import Analysis


def analyses() -> Dict[str, Analysis]:
    """Name → analysis, in alphabetical order."""
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    declared = (vars(module).get("ANALYSIS") for module in modules)
    return {analysis.name: analysis for analysis in declared if isinstance(analysis, Analysis)}

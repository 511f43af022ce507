"""Register the criterions when fairseq is imported, if that comes later."""

import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Optional

_FAIRSEQ = "fairseq"


class _AfterFairseq(MetaPathFinder):
    """Leaves it to the other finders to find fairseq, and lets its loader import the criterions at the end."""

    def __init__(self) -> None:
        self._asking_the_others = False

    def find_spec(self, name: str, path: Any = None, target: Optional[ModuleType] = None) -> Optional[ModuleSpec]:
        if name != _FAIRSEQ or self._asking_the_others:
            return None
        self._asking_the_others = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asking_the_others = False
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Loader) -> None:
        execute = loader.exec_module

        def executed(module: ModuleType) -> None:
            execute(module)
            sys.meta_path.remove(self)
            importlib.import_module(".criterions", __package__)

        loader.exec_module = executed  # type: ignore[method-assign]


def register_after_import() -> None:
    """Import ``labo_fairseq.criterions`` right after fairseq."""
    sys.meta_path.insert(0, _AfterFairseq())

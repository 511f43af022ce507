"""The training methods for images: a module each, whose name is the method's, found by itself."""

import inspect
from functools import lru_cache
from importlib import import_module
from typing import Any, Dict, List, Type

from ...errors import UserError
from ...files import image_methods
from .base import Batch, Context, Method

__all__ = ["Batch", "Context", "Method", "build_method", "find_method", "method_defaults", "method_names"]


def method_names() -> List[str]:
    """All methods, without importing any of them."""
    return image_methods()


@lru_cache(maxsize=None)  # a grid asks for it several times per run
def find_method(name: str) -> Type[Method]:
    """The class of a method.

    Raises:
        UserError: there is no such method.
    """
    if name not in method_names():
        raise UserError(f"no method {name!r} for images: choose from {', '.join(method_names())}")
    module = import_module(f"{__name__}.{name}")
    (method,) = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    return method


def method_defaults(name: str) -> Dict[str, Any]:
    """The options of a method with their defaults."""
    parameters = inspect.signature(find_method(name)).parameters.values()
    return {option.name: option.default for option in parameters if option.kind is option.KEYWORD_ONLY}


def build_method(name: str, context: Context, options: Dict[str, Any]) -> Method:
    """A method with the given options.

    Raises:
        UserError: no such method, or an option that it does not have or that is out of range.
    """
    unknown = sorted(set(options) - set(method_defaults(name)))
    if unknown:
        known = ", ".join(method_defaults(name)) or "nothing"
        raise UserError(f"{name} has no option criterion.{unknown[0]}: it has {known}")
    try:
        return find_method(name)(context, **options)
    except ValueError as error:
        raise UserError(f"criterion.{error}") from None

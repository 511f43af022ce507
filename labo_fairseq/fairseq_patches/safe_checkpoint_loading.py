"""Let fairseq read checkpoints without running code from them.

It unpickles whatever a checkpoint names (before torch 2.6), and evaluates strings that stand among its options, such
as the layers of a convolutional model, as Python. Since torch 2.6, on the other hand, it can load none of its own.
"""

import ast
import functools
import sys
from contextlib import contextmanager
from typing import Any, Callable, Iterator

import torch
from fairseq import checkpoint_utils
from fairseq.distributed import utils as distributed_utils

from ..checkpoints import read_file
from ..errors import UserError

_ARITHMETIC = (
    *(ast.Expression, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Load, ast.UnaryOp, ast.USub, ast.UAdd),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div),
)

_load_to_cpu = checkpoint_utils.load_checkpoint_to_cpu
_load_ema = checkpoint_utils.load_ema_from_checkpoint
_receive = distributed_utils._broadcast_object_slow


def load_to_cpu(path: str, *args: Any, **options: Any) -> Any:
    """fairseq's ``load_checkpoint_to_cpu``.

    Raises:
        UserError: see :func:`.read_file`.
    """
    with _torch_load(read_file):
        return _load_to_cpu(path, *args, **options)


def calculate(expression: Any) -> Any:
    """The value of numbers, strings, lists, tuples, dictionaries and ``+ - * /`` between them; in place of ``eval``.

    Raises:
        SystemExit: it is anything else.
    """
    if not isinstance(expression, str):
        raise TypeError(f"{type(expression).__name__} is no string")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError):
        tree = None
    if tree is None or not all(isinstance(node, _ARITHMETIC) for node in ast.walk(tree)):
        raise SystemExit(
            f"the option {expression[:60]!r} is refused: it must be a number, a list or another plain value"
        )
    return eval(compile(tree, "option", "eval"), {"__builtins__": {}})


def load_safely() -> None:
    """Replace what fairseq loads checkpoints with, and its ``eval``; a refused one ends the process with one line."""
    checkpoint_utils.load_checkpoint_to_cpu = _in_one_line(load_to_cpu)
    checkpoint_utils.load_ema_from_checkpoint = _in_one_line(_load_ema_to_cpu)
    if torch.__version__ >= "2.6":
        distributed_utils._broadcast_object_slow = _from_another_worker
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "fairseq":
            vars(module)["eval"] = calculate  # found before the built-in one


def _load_ema_to_cpu(path: str) -> Any:
    with _torch_load(read_file):
        return _load_ema(path)


def _from_another_worker(*args: Any, **options: Any) -> Any:
    """What one worker of this training sends the others is no file: it may hold any object of fairseq."""
    with _torch_load(functools.partial(torch.load, weights_only=False)):
        return _receive(*args, **options)


@contextmanager
def _torch_load(load: Callable) -> Iterator[None]:
    original = torch.load
    torch.load = load
    try:
        yield
    finally:
        torch.load = original


def _in_one_line(load: Callable) -> Callable:
    @functools.wraps(load)
    def loaded(*args: Any, **options: Any) -> Any:
        try:
            return load(*args, **options)
        except UserError as error:
            raise SystemExit(str(error)) from None

    return loaded

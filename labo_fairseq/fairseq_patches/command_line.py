"""Remember the arguments that fairseq parses: its configurations do not tell an option given from a default."""

import argparse
import sys
from functools import wraps
from typing import Any, Callable, List, Optional

from fairseq import options

_given: Optional[List[str]] = None  # where they are not those of the process


def arguments() -> List[str]:
    """Those of the command; also in a worker that the command has started, and has given its ``sys.argv``."""
    return sys.argv[1:] if _given is None else _given


def argument(option: str) -> Optional[str]:
    """The last value that the command gives an option with one value; None where it does not name it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(option, dest="value")
    return parser.parse_known_args(arguments())[0].value


def _noted(parse: Callable) -> Callable:
    @wraps(parse)
    def parsed(parser: Any, input_args: Any = None, *args: Any, **kwargs: Any) -> Any:
        global _given
        _given = None if input_args is None else [str(argument) for argument in input_args]
        return parse(parser, input_args, *args, **kwargs)

    return parsed


def remember_arguments() -> None:
    """Wrap ``parse_args_and_arch``, which parses for every command."""
    options.parse_args_and_arch = _noted(options.parse_args_and_arch)

"""What the user of fairseq's commands wrote, and writes.

The arguments that fairseq parses are remembered: its configurations do not tell an option given from a default.
"""

import argparse
import re
import sys
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, Callable, List, Match, Optional

from fairseq import options
from fairseq.dataclass.configs import FairseqConfig
from hydra.core.hydra_config import HydraConfig

#: an option in a message, and whether a number follows
_OPTION = re.compile(r"--([a-z][a-z0-9-]*)( (?=[0-9]))?")
#: those that belong to what was chosen of a group, and not to fairseq or to a criterion: name → group
_CHOSEN = {"warmup_updates": "lr_scheduler", "adaptive_softmax_cutoff": "model", "multitask_config_yaml": "task"}

_given: Optional[List[str]] = None  # where they are not those of the process


def arguments() -> List[str]:
    """Those of the command; also in a worker that the command has started, and has given its ``sys.argv``."""
    return sys.argv[1:] if _given is None else _given


def argument(option: str) -> Optional[str]:
    """The last value that the command gives an option with one value; None where it does not name it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(option, dest="value")
    return parser.parse_known_args(arguments())[0].value


def as_written(message: str) -> str:
    """``message`` with its options as the user of this training writes them: in place of ``--lr`` the setting
    ``optimization.lr`` where Hydra composes the training.
    """
    # fairseq-train composes its configuration with Hydra, too, but not as Hydra's application
    return _OPTION.sub(_as_setting, message) if HydraConfig.initialized() else message


def _as_setting(found: Match) -> str:
    name, number_follows = found.group(1).replace("-", "_"), found.group(2)
    if name in _names(FairseqConfig):  # a group, such as --criterion
        return found.group()
    groups = (part.name for part in fields(FairseqConfig) if is_dataclass(part.type) and name in _names(part.type))
    group = next(groups, None) or _CHOSEN.get(name, "criterion")
    return f"{group}.{name}" + ("=" if number_follows else "")


def _names(kind: Any) -> List[str]:
    return [one.name for one in fields(kind)]


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

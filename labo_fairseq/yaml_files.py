"""YAML that users write: read strictly, with one line about what is wrong and where."""

import re
from pathlib import Path
from typing import Any, Collection, Dict, List

import yaml

from .errors import UserError


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML would keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


# numbers of YAML 1.2, as fairseq's and the command line's settings are read; PyYAML's 1.1 takes 1e-3 for a word
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        UserError: it is not there, cannot be read, is no UTF-8 or no YAML, or has a key twice.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from None


def parse_yaml(text: str) -> Any:
    """The value of a setting.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, Loader=_Loader)


def check_keys(value: Any, known: Collection[str], needed: Collection[str] = ()) -> Dict[str, Any]:
    """``value``, which must be a mapping with ``needed`` and perhaps other ``known`` keys.

    Raises:
        UserError: it is not.
    """
    if not isinstance(value, dict):
        raise UserError(f"{value!r} is no set of KEY: VALUE")
    unknown, missing = sorted(map(str, set(value) - set(known))), sorted(set(needed) - set(value))
    if unknown:
        raise UserError(f"unknown key {', '.join(unknown)}: choose from {', '.join(sorted(known))}")
    if missing:
        raise UserError(f"no {', '.join(missing)}")
    return value


def check_list(value: Any, name: str) -> List[Any]:
    """``value``, which must be a list that is not empty.

    Raises:
        UserError: it is not.
    """
    if not isinstance(value, list) or not value:
        raise UserError(f"{name} must be a list of at least one")
    return value

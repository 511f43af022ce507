"""The configuration file that a command names to Hydra: read before Hydra does, and in workers where it does not."""

import argparse
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence

import yaml

_EXTENSIONS = (".yaml", ".yml")


class PrimaryConfig(NamedTuple):
    """What ``fairseq-hydra-train`` was called with."""

    folder: Path
    #: of the file that --config-name names in ``folder``; empty where there is none
    settings: Dict[str, Any]
    #: the other words of the command line, KEY=VALUE
    overrides: List[str]

    def asked_for(self, group: str) -> Iterator[str]:
        """The names that the command line and the defaults of the file choose in a configuration group."""
        for override in self.overrides:
            key, _, value = override.lstrip("+").partition("=")
            if key == group:
                yield from value.split(",")  # several in a sweep
        for entry in self.settings.get("defaults") or ():
            # 'override /criterion@place: labo', or 'criterion/labo'
            pairs = entry.items() if isinstance(entry, dict) else [str(entry).rpartition("/")[::2]]
            for key, value in pairs:
                words = str(key).split()
                if words and words[-1].strip("/").partition("@")[0] == group:
                    yield from map(str, value if isinstance(value, list) else [value])


def read_primary_config(arguments: Sequence[str], started_in: Path) -> PrimaryConfig:
    """Find and read the file as Hydra does.

    Args:
        arguments: those of the command.
        started_in: the working directory in which the command was started.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for names in (("--config-dir", "-cd"), ("--config-path", "-cp"), ("--config-name", "-cn")):
        parser.add_argument(*names)
    given, overrides = parser.parse_known_args(list(arguments))
    folder = Path(started_in, given.config_dir or given.config_path or "")
    name = given.config_name or "config"
    # Hydra adds the extension, whatever other dot the name has: labo_tau1.15 is labo_tau1.15.yaml
    file = folder / (name if name.endswith(_EXTENSIONS) else f"{name}.yaml")
    settings = None
    if file.is_file():
        with suppress(UnicodeDecodeError, yaml.YAMLError):  # of which Hydra tells the user
            settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    return PrimaryConfig(folder, settings if isinstance(settings, dict) else {}, overrides)

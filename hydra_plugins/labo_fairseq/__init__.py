"""Lets ``fairseq-hydra-train`` find the criterions of labo-fairseq by name, as in ``criterion=labo``.

Hydra looks into ``hydra_plugins`` before it composes a configuration, while fairseq imports ``common.user_dir`` only
once it has one. A program that asks for no criterion beyond fairseq's own does not import the plugin.
"""

import sys
from pathlib import Path
from typing import Iterator

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from .primary_config import read_primary_config


class CriterionsPlugin(SearchPathPlugin):
    """Leaves the search path as it is: importing a criterion puts it into Hydra's store of configurations."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        criterions = sys.modules.get("fairseq.criterions")
        if criterions and any(name not in criterions.CRITERION_REGISTRY for name in _asked_for()):
            import labo_fairseq.criterions  # noqa: F401


def _asked_for() -> Iterator[str]:
    """Names of criterions on the command line, and in the defaults of the configuration that it names.

    A configuration folder may have a file of its own for a criterion. Hydra would merge it with what we register under
    the same name, so that such a name is not asked of us.
    """
    config = read_primary_config(sys.argv[1:], Path.cwd())
    for name in config.asked_for("criterion"):
        if not (config.folder / "criterion" / f"{name}.yaml").is_file():
            yield name

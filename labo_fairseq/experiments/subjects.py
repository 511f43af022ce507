"""What a grid runs: a model for a corpus and a direction, or a network for a data set of images."""

from abc import ABC, abstractmethod
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Sequence

from ..evaluation.runs import BEST
from ..files import image_methods, methods
from ..images.datasets import load_declaration
from ..images.methods import find_method
from ..images.settings import compose
from .config import takes_teachers
from .recipes import Setup, configuration, find, run_config
from .run_directory import run_folder


class Subject(ABC):
    """A corpus and a direction, or a data set and a network."""

    name: str  # of the corpus or the data set; :attr:`Job.corpus` may be a path
    direction: str  # or the network, as the folder is called
    checkpoint: str  # which one is scored, and teaches
    hours: Dict[str, float]  # device → what a run is declared to take
    timed_with: str  # key under which run times are comparable

    @abstractmethod
    def methods(self) -> List[str]:
        """What it can be trained with."""

    @abstractmethod
    def takes_teachers(self, method: str) -> bool:
        """Whether a method needs a finished run."""

    @abstractmethod
    def config(self, method: str, seed: int, overrides: Sequence[str] = (), smoke: bool = False) -> Dict[str, Any]:
        """The configuration of a run.

        Raises:
            UserError: ``overrides`` do not fit.
        """

    @abstractmethod
    def plain(self, method: str, overrides: Sequence[str] = ()) -> Dict[str, Any]:
        """The configuration before a seed or a smoke test changes it; raises as :meth:`config`."""

    @abstractmethod
    def run_folder(self, root: Path, name: str) -> Path:
        """Where a run lies below ``root``, see :func:`.run_directory.run_folder`."""


class Translation(Subject):
    """A corpus and a direction."""

    def __init__(self, setup: Setup, corpus: str) -> None:
        self.setup = setup
        self.name, self.direction, self.timed_with = setup.corpus.name, setup.direction, corpus
        self.checkpoint, self.hours = setup.training.checkpoint, setup.training.hours

    def methods(self) -> List[str]:
        return methods()

    def takes_teachers(self, method: str) -> bool:
        return takes_teachers(method)

    def config(self, method: str, seed: int, overrides: Sequence[str] = (), smoke: bool = False) -> Dict[str, Any]:
        return run_config(self.setup, method, seed, overrides, smoke)

    def plain(self, method: str, overrides: Sequence[str] = ()) -> Dict[str, Any]:
        return configuration(self.setup, method, overrides)

    def run_folder(self, root: Path, name: str) -> Path:
        return self.setup.run_folder(root, name)


class Images(Subject):
    """A data set and a network."""

    checkpoint = BEST

    def __init__(self, dataset: str, network: str) -> None:
        self.declaration, self.network = load_declaration(dataset), network
        # a module's function is named behind a colon, which no folder may have
        self.name, self.direction = self.declaration.name, network.replace(":", ".")
        self.timed_with = f"{dataset} {network}"
        self.hours = {}  # a grid says what its runs take
        self._methods = image_methods()
        self.plain("ce")  # for what it refuses

    def methods(self) -> List[str]:
        return self._methods

    def takes_teachers(self, method: str) -> bool:
        return find_method(method).needs_teacher

    def config(self, method: str, seed: int, overrides: Sequence[str] = (), smoke: bool = False) -> Dict[str, Any]:
        return compose(self.declaration, self.network, method, seed, overrides, smoke)

    def plain(self, method: str, overrides: Sequence[str] = ()) -> Dict[str, Any]:
        return self.config(method, 1, overrides)

    def run_folder(self, root: Path, name: str) -> Path:
        return run_folder(root, self.name, self.direction, name)


def find_translation(corpus: str, direction: str, smoke: bool = False) -> Translation:
    """A corpus, by name or YAML file, and a direction.

    Raises:
        UserError: see :func:`.recipes.find`.
    """
    return Translation(find(corpus, direction, smoke=smoke), corpus)


@lru_cache(maxsize=None)  # a grid asks for it once per run
def find_images(dataset: str, network: str) -> Images:
    """A data set, by name or YAML file, and a network.

    Raises:
        UserError: there is none of that name.
    """
    return Images(dataset, network)

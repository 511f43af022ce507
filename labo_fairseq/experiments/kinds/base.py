"""What grids, tables, comparisons and reports ask of a kind of run."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ...evaluation.metrics import Score
from ...evaluation.runs import RunFolder, RunResult
from ...evaluation.significance import Compared
from ...reporting.table import Table


class Shown(NamedTuple):
    """The score that a table shows."""

    key: str
    name: str
    lower_is_better: bool
    digits: int  # behind the point


class Place(NamedTuple):
    """A test set of a run."""

    direction: str  # of the translation, which in a multilingual model is not that of the run; or the network
    test: str


class Scored(NamedTuple):
    """One run on one test set."""

    score: Score
    statistics: Optional[np.ndarray]  # (items, S), a row for each sentence or image; None: it cannot be tested
    total: Optional[Callable[[np.ndarray], np.ndarray]]  # (..., S) sums of these → (...) scores
    held_out: bool = True  # False: on the validation set


class GridRun(NamedTuple):
    """A finished run, as the report of its grid sorts it."""

    group: str  # runs of the same group were trained on the same data with the same model
    variant: str  # its method and settings
    seed: int
    run: RunFolder


class Subject(ABC):
    """A corpus and a direction, or a data set and a network."""

    name: str  # of the corpus or the data set, which may be given as a path
    argument: str  # the direction or the network, as the command line takes it
    direction: str  # and as its folder is called
    checkpoint: str  # which one is scored, and teaches
    timed_with: str  # key under which run times are comparable

    @abstractmethod
    def methods(self) -> List[str]:
        """What it can be trained with."""

    @abstractmethod
    def takes_teachers(self, method: str) -> bool:
        """Whether a method needs a finished run."""

    @abstractmethod
    def hours(self, method: str) -> Dict[str, float]:
        """Device → what a run is declared to take, without what its teachers do."""

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
        """Where a run lies below ``root``, see :func:`..run_directory.run_folder`."""


class Kind(ABC):
    """A kind of run, such as translation."""

    keys: Tuple[str, str]  # in a grid: what is trained on, and the list of directions or networks
    unscored: str  # why a finished run may lack a score
    own_keys: Tuple[str, ...] = ()  # what else a block of a grid may hold

    @abstractmethod
    def find(self, name: str, direction: str, smoke: bool = False) -> Subject:
        """A corpus or data set, by name or YAML file, and a direction or network.

        Raises:
            UserError: there is none of that name.
        """

    @abstractmethod
    def load(self, folder: Path) -> RunFolder:
        """The finished run in ``folder``.

        Raises:
            UserError: there is none of this kind.
        """

    @abstractmethod
    def shown(self, metric: str) -> Shown:
        """The score of that name in any case; empty: the usual one.

        Raises:
            UserError: there is none.
        """

    @abstractmethod
    def scores(self, run: Any, result: RunResult, direction: str, metric: str) -> Dict[Place, Scored]:
        """One score of a run on its test sets, those where it cannot be computed left out.

        Args:
            run: what :meth:`load` returns.
            direction: of the :class:`Subject`.
            metric: key of :meth:`shown`.
        """

    @abstractmethod
    def validation_curve(self, log: Path) -> Tuple[List[Tuple[int, float]], str]:
        """(updates, score) of every validation of a training, and what the score is called, such as "validation BLEU".

        Without a validation set it may be a score on the training set, and must be called so.
        """

    @abstractmethod
    def progress(self, log: Path, config: Dict[str, Any]) -> str:
        """In words, how far a training with this log and configuration has come."""

    @abstractmethod
    def compare(
        self, folders: Sequence[Path], test: Sequence[str], metrics: Sequence[str], samples: int
    ) -> List[Compared]:
        """Scores of finished runs, tested against the first of them.

        Args:
            test: name of a test set, or what else this kind of run can be compared on; none: the main one.
            metrics: names; none: the usual ones.
            samples: of the bootstrap.

        Raises:
            UserError: fewer than two runs, runs on different data, or no such test set or score.
        """

    @abstractmethod
    def report(self, folders: Sequence[Path], out: Optional[Path]) -> Tuple[Path, List[Table]]:
        """Write a page on finished runs into ``out``, or beside the last of them; its path, and what to print.

        Raises:
            UserError: the runs cannot stand on one page.
        """

    def more_tables(self, finished: Sequence[GridRun], baseline: str) -> List[Table]:
        """What the report of a grid shows below the table of scores."""
        return []

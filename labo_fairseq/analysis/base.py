"""What an analysis is, and the files that tell its result."""

import csv
import sys
from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

from ..evaluation.runs import Run, load_run
from ..files import atomic_write, locked, write_json
from ..reporting.figure import NO_FIGURE, Figure, save_png
from ..reporting.table import Table


@dataclass(frozen=True)
class AnalysisResult:
    """Tables, figures and the numbers behind them."""

    name: str  # of its files
    title: str
    text: str  # what is shown, and how to read it
    tables: Sequence[Table]
    figures: Sequence[Figure]
    records: Sequence[Dict[str, Any]]  # rows of the CSV file, with equal keys
    metadata: Dict[str, Any]  # what the JSON file has in addition to the records

    def write(self, folder: Path) -> List[Path]:
        """``NAME.md``, ``.csv``, ``.json`` and a PNG per figure in ``folder``, written atomically; what was written.

        A figure is left out where matplotlib is not installed.
        """
        paths = [folder / f"{self.name}.{ending}" for ending in ("md", "csv", "json")]
        blocks = [f"# {self.title}", self.text, *(table.markdown() for table in self.tables)]
        with atomic_write(paths[0]) as part:
            part.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
        with atomic_write(paths[1]) as part, open(part, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(self.records[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.records)
        write_json(paths[2], {**self.metadata, "records": self.records})
        figures = {folder / f"{figure.name}.png": figure for figure in self.figures}
        drawn = [path for path, figure in figures.items() if save_png(path, figure.size, figure.paint)]
        return [*paths, *drawn]


class Analysis(ABC):
    """One analysis of finished runs on the same data, the baseline first."""

    name: str  # of the subcommand and of the section in the report
    summary: str  # one line of help
    description: str
    in_report: bool = True  # False: it takes too long for the report

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The arguments of the subcommand; ``--out`` is added to them."""
        parser.add_argument(
            "folders", type=Path, nargs="+", metavar="RUN", help="directories of the runs, the baseline first"
        )

    def runs(self, args: Namespace) -> List[Run]:
        """The runs that the arguments name."""
        return [load_run(folder) for folder in args.folders]

    def options(self, args: Namespace) -> Dict[str, Any]:
        """What the arguments say to :meth:`run`."""
        return {}

    def report_options(self, runs: Sequence[Run]) -> Dict[str, Any]:
        """What the report says to :meth:`run`."""
        return {}

    @abstractmethod
    def run(self, runs: Sequence[Run], folder: Path, **options: Any) -> AnalysisResult:
        """Analyze ``runs``; ``folder`` may keep what is worth it for the next time.

        Raises:
            UserError: runs on different data, or something that is not there.
        """


@contextmanager
def workplace(runs: Sequence[Run], folder: Optional[Path]) -> Iterator[Path]:
    """``folder``, or the folder ``analysis`` of the last run, for this process alone.

    Raises:
        UserError: another process is at work in it.
    """
    place = folder or runs[-1].folder / "analysis"
    with locked(place):
        yield place


def publish(result: AnalysisResult, folder: Path) -> None:
    """Write the files of ``result`` into ``folder``, print its tables and where everything is."""
    paths = result.write(folder)
    for table in result.tables:
        print(f"\n{table.text()}")
    print()
    for path in paths:
        print(f"{path.suffix[1:]:<10}{path}")
    if len(paths) < len(result.figures) + 3:
        print(NO_FIGURE, file=sys.stderr)

"""What an analysis found, and the files that tell it."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Sequence

from ..files import whole_file, write_json
from ..reporting.figure import Figure, save_png
from ..reporting.table import Table


@dataclass(frozen=True)
class Analysis:
    """Tables, pictures and the numbers behind them."""

    name: str  # of its files
    title: str
    text: str  # what is shown, and how to read it
    tables: Sequence[Table]
    pictures: Sequence[Figure]
    records: Sequence[Dict[str, Any]]  # rows of the CSV file, with equal keys
    facts: Dict[str, Any]  # what the JSON file says beside them

    def write(self, folder: Path) -> List[Path]:
        """``NAME.md``, ``.csv``, ``.json`` and a PNG a picture in ``folder``, each whole; those that were made.

        A picture is left out where matplotlib is not installed.
        """
        paths = [folder / f"{self.name}.{ending}" for ending in ("md", "csv", "json")]
        blocks = [f"# {self.title}", self.text, *(table.markdown() for table in self.tables)]
        with whole_file(paths[0]) as part:
            part.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
        with whole_file(paths[1]) as part, open(part, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(self.records[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.records)
        write_json(paths[2], {**self.facts, "records": self.records})
        pictures = {folder / f"{picture.name}.png": picture for picture in self.pictures}
        drawn = [path for path, picture in pictures.items() if save_png(path, picture.size, picture.paint)]
        return [*paths, *drawn]

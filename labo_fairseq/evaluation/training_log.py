"""Training curves out of fairseq's JSON log."""

import json
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from ..files import read_lines

Curves = Dict[str, Dict[str, Dict[int, float]]]


def parse_record(line: str) -> Optional[Tuple[str, Dict[str, Any]]]:
    """``("train_inner" | "train" | "valid", statistics)`` of a line of ``--log-format json``, else None."""
    parts = line.split(" | ", 3)
    if len(parts) != 4 or parts[2] not in ("train_inner", "train", "valid"):
        return None
    try:
        return parts[2], {name: _number(value) for name, value in json.loads(parts[3]).items()}
    except ValueError:  # a line that a kill cut short
        return None


def read_curves(log: Path) -> Curves:
    """``{"train" | "valid": {name: {update: value}}}``; where a run was resumed, its last word counts."""
    curves: Curves = {"train": {}, "valid": {}}
    for line in read_lines(log):
        record = parse_record(line)
        if record is None or record[0] == "train":
            continue
        kind, prefix = ("valid", "valid_") if record[0] == "valid" else ("train", "")
        update = int(record[1][prefix + "num_updates"])
        for name, value in record[1].items():
            curves[kind].setdefault(name[len(prefix) :], {})[update] = value
    return curves


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value

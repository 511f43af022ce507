"""The checkpoint that a killed training resumes from."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any, Dict, Optional

from ..checkpoints import load_checkpoint
from ..errors import UserError
from ..files import atomic_write

LAST, BEST = "checkpoint_last.pt", "checkpoint_best.pt"
_STATE = re.compile(r"checkpoint(\d+|_\d+_\d+|_best|_last)\.pt")


def recover_checkpoints(folder: Path) -> int:
    """Make ``checkpoint_last.pt``, from which fairseq resumes, and ``checkpoint_best.pt`` whole.

    fairseq writes a state of the training to one file and copies it to these two names. Where one of them is damaged
    or missing, another file with the same state takes its place; for the last one, the newest that is intact. Damaged
    files are set aside, and stderr is told. Where nothing is intact the training starts from nothing.

    Returns:
        How many updates the training has made.
    """
    for unfinished in folder.glob("*.tmp"):
        unfinished.unlink()
    files = [path for path in folder.glob("checkpoint*.pt") if _STATE.fullmatch(path.name)]
    newest_first = sorted(files, key=lambda path: (path.name == LAST, path.stat().st_mtime_ns), reverse=True)
    for path in newest_first:
        state = _read(path)
        if state is not None:
            break
    else:
        return 0
    if path.name != LAST:
        print(f"the training resumes from {path}", file=sys.stderr)
        _copy(path, folder / LAST)
    best = state["extra_state"].get("best")
    if best is not None and not _reached(folder / BEST, best):
        equal = next((each for each in newest_first if each.name != BEST and _reached(each, best)), None)
        if equal:
            _copy(equal, folder / BEST)
    return state["optimizer_history"][-1]["num_updates"]


def _reached(path: Path, score: float) -> bool:
    """Whether the training had this validation score when it wrote ``path``."""
    state = _read(path) if path.exists() else None
    return state is not None and state["extra_state"].get("val_loss") == score


def _read(path: Path) -> Optional[Dict[str, Any]]:
    try:
        return load_checkpoint(path)
    except UserError as error:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        print(f"{error}; it is kept as {aside.name}", file=sys.stderr)
        return None


def _copy(path: Path, to: Path) -> None:
    with atomic_write(to) as part:
        shutil.copyfile(path, part)

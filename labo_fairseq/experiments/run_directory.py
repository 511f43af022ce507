"""The directory of one run, for translation or for images: whose it is, and what its results depend on."""

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterable, List

from ..errors import UserError
from ..evaluation.runs import read_json
from ..files import SPECIAL_IN_RUN, check_folder, write_json


def run_folder(root: Path, corpus: str, direction: str, name: str) -> Path:
    """Where a run lies below ``root``; for images, ``corpus`` is the data set and ``direction`` the network.

    Raises:
        UserError: ``name`` leads elsewhere, or see :func:`check_folder`.
    """
    parts = Path(name).parts
    if not parts or ".." in parts or Path(name).is_absolute():
        raise UserError(f"{name!r} is no name of a folder")
    return check_folder(root / corpus / direction / name, SPECIAL_IN_RUN)


def refuse_foreign(folder: Path) -> None:
    """UserError where files lie here that belong to no run."""
    if not (folder / "settings.json").exists():
        foreign = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if foreign:
            raise UserError(f"{folder} holds {foreign[0]} and no run: choose another folder or name")


def claim(folder: Path, settings: Dict[str, Any]) -> None:
    """Write the settings down, or compare them with those of the run that was begun here."""
    path, mine = folder / "settings.json", settings
    if not path.exists():
        write_json(path, mine)
        return
    theirs = read_json(path)
    theirs.setdefault("files", mine["files"])  # a run of a version that did not write them down
    differing = sorted(differences(mine, as_written_today(theirs)))
    if differing:
        raise UserError(
            f"{folder} holds a run with another {', '.join(differing)}: choose another folder or name, "
            "or start over with --fresh"
        )


def empty(folder: Path, made: Iterable[str]) -> None:
    """Delete ``made``, what a run makes, and nothing else; that it is a run is forgotten last."""
    for name in made:
        path = folder / name
        if path.is_symlink() and path.is_dir():  # on another disk, where it stays
            for inner in path.iterdir():
                _delete(inner)
        else:
            _delete(path)


def _delete(path: Path) -> None:
    """A file, a folder or a link, but not what a link points to; or nothing, where nothing is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def as_written_today(settings: Dict[str, Any]) -> Dict[str, Any]:
    """The settings of a run as this version writes them.

    Where the last checkpoint is scored, version 0.1 and the first of 0.2 named the nll as what the best goes by.
    """
    config = settings.get("config", {})
    checkpoint = config.get("checkpoint", {})
    if not isinstance(checkpoint, dict) or checkpoint.get("best_checkpoint_metric") != "nll_loss":
        return settings
    kept = {name: value for name, value in checkpoint.items() if name != "best_checkpoint_metric"}
    return {**settings, "config": {**config, "checkpoint": kept}}


def differences(mine: Any, theirs: Any, name: str = "") -> List[str]:
    """Dotted names of the settings in which two JSON values differ."""
    if not (isinstance(mine, dict) and isinstance(theirs, dict)):
        return [] if mine == theirs else [name]
    prefix = f"{name}." if name else ""
    return [
        setting for key in {*mine, *theirs} for setting in differences(mine.get(key), theirs.get(key), f"{prefix}{key}")
    ]


def versions() -> Dict[str, str]:
    """Versions that a result depends on."""
    revision = _revision()
    packages = ("labo-fairseq", "fairseq", "fairseq-fixed", "torch", "sacrebleu", "subword-nmt", "sacremoses")
    return {
        "python": platform.python_version(),
        **({"revision": revision} if revision else {}),
        **package_versions(packages),
    }


def package_versions(packages: Iterable[str]) -> Dict[str, str]:
    """Package → version; those that are not installed, such as one of the two fairseqs, are left out."""
    from importlib.metadata import PackageNotFoundError, version

    installed = {}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def _revision() -> str:
    """The git commit of the checkout that runs, with a ``+`` where files of it were changed; empty elsewhere."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return ""
    git = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(git, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8").stdout.strip()
    except OSError:  # no git here
        return ""

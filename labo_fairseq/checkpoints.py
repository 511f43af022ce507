"""fairseq's checkpoints: read without running code from them, whatever torch and whoever wrote them; averaged; and
recovered where a kill has damaged one."""

import pickle
import re
import shutil
import sys
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, List, Optional, Sequence, Union

import torch

from . import safe_pickle
from .errors import UserError
from .files import atomic_write

LAST, BEST = "checkpoint_last.pt", "checkpoint_best.pt"
_STATE = re.compile(r"checkpoint(\d+|_\d+_\d+|_best|_last)\.pt")


def read_file(file: Union[str, Path, BinaryIO], map_location: Any = "cpu") -> Any:
    """What ``torch.save`` wrote; as ``torch.load``, with :mod:`.safe_pickle` for an unpickler.

    Raises:
        UserError: it is damaged, or asks for more than a checkpoint of fairseq needs.
    """
    with _told_in_one_line(file if isinstance(file, (str, Path)) else getattr(file, "name", "the file")):
        return _read_file(file, map_location)


@contextmanager
def _told_in_one_line(name: Any) -> Iterator[None]:
    try:
        yield
    except MemoryError:  # no fault of the file's
        raise
    except safe_pickle.ForbiddenError as error:
        asked = str(error)
    # bytes that are no pickle raise anything, and torch's message recommends switching the check off
    except Exception as error:
        named = isinstance(error, pickle.UnpicklingError) and re.search(r"\bGLOBAL (\S+)", str(error))
        if not named:
            raise UserError(f"{name} cannot be read as a checkpoint: {type(error).__name__}") from None
        asked = named[1]
    else:
        return
    raise UserError(
        f"{name} is refused: it asks for {asked}, which is nothing that a release of fairseq writes into a checkpoint, "
        "and which may run code. Nothing of it was run; get the checkpoint from someone you trust"
    )


def save_file(path: Path, state: Any) -> None:
    """``torch.save``; ``path`` is complete or absent.

    Raises:
        OSError: it cannot be written, for example because the disk is full; torch itself would raise a RuntimeError
            that does not say so, and torch 1.12 ends the process.
    """
    with atomic_write(path) as part:
        try:
            with open(part, "wb") as file:
                writer = _Writer(file)
                torch.save(state, writer)  # type: ignore[arg-type]
                if writer.error:
                    raise writer.error
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None


class _Writer:
    """A file for torch that keeps an error for later: torch takes none while it writes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: Optional[OSError] = None

    def write(self, data: bytes) -> int:
        """``len(data)``, whether they could be written or not."""
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Nothing: the owner of the file does it."""


def _read_file(file: Union[str, Path, BinaryIO], map_location: Any) -> Any:
    if isinstance(file, (str, Path)):
        with open(file, "rb") as opened:
            # of an archive, or of a pickle; torch asks for any amount of memory to read other bytes
            if opened.read(1) not in (b"P", b"\x80"):
                raise pickle.UnpicklingError("it is neither an archive nor a pickle")
    if torch.__version__ >= "2.6":
        with suppress(pickle.UnpicklingError), _safe_globals():
            return torch.serialization.load(file, map_location=map_location, weights_only=True)
    # older torch, or a class that torch does not know
    with torch.serialization._open_file_like(file, "rb") as opened:
        opened.seek(0)
        if torch.serialization._is_zipfile(opened):
            with torch.serialization._open_zipfile_reader(opened) as archive:
                # torch would hand it on to torch.jit, which runs what it finds
                if torch.serialization._is_torchscript_zip(archive):
                    raise safe_pickle.ForbiddenError("torch.jit")
            opened.seek(0)
        options: Dict[str, Any] = {"pickle_module": safe_pickle}
        if torch.__version__ >= "1.13":
            options["weights_only"] = False
        return safe_pickle.plain(torch.serialization.load(opened, map_location=map_location, **options))


@contextmanager
def _safe_globals() -> Iterator[None]:
    """Until the block ends, torch allows what it knows itself and ``SAFE``, whatever others have registered."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([(value, name) for name, value in safe_pickle.SAFE.items()])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def load_checkpoint(path: Path) -> Dict[str, Any]:
    """What a checkpoint of fairseq holds, on the CPU.

    Raises:
        UserError: it is damaged, no checkpoint of fairseq, or asks for more than one needs.
    """
    with _told_in_one_line(path):
        # torch does not look at the checksums of the tensors
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged:
                raise zipfile.BadZipFile(f"{damaged} has another checksum")
    state = read_file(path)
    if not isinstance(state, dict) or "model" not in state:
        raise UserError(f"{path} is not a checkpoint of fairseq: it has no model")
    return state


def average_checkpoints(paths: Sequence[Path], output: Path) -> None:
    """Write the mean of checkpoints, the newest last in ``paths``, as a checkpoint of fairseq.

    Floating-point tensors of ``model`` are added in float32 and keep their type; all else, such as a count of updates
    in the model and the state of the optimizer, is the newest one's. ``output`` is complete or absent.

    Raises:
        UserError: a file is not a checkpoint, or they are of different models.
    """
    sums: Dict[str, torch.Tensor] = {}
    for path in paths:
        state = load_checkpoint(path)
        shapes = {name: tensor.shape for name, tensor in state["model"].items()}
        if path is paths[0]:
            expected = shapes
        elif shapes != expected:
            raise UserError(f"{path} and {paths[0]} are of different models: their parameters differ")
        for name, tensor in state["model"].items():
            if tensor.is_floating_point():
                sums[name] = sums[name] + tensor.float() if name in sums else tensor.float()
    for name, total in sums.items():
        state["model"][name] = (total / len(paths)).to(state["model"][name].dtype)
    save_file(output, state)


def newest_checkpoints(folder: Path, number: int) -> List[Path]:
    """The last ``number`` checkpoints of epochs in ``folder``, or of updates where there is none of an epoch.

    Returns:
        Oldest first.

    Raises:
        UserError: there are fewer, or ``number`` is below 1.
    """
    if number < 1:
        raise UserError(f"cannot average {number} checkpoints: at least 1")
    epochs, updates = (_numbered(folder, pattern) for pattern in (r"checkpoint(\d+)\.pt", r"checkpoint_\d+_(\d+)\.pt"))
    numbered = epochs or updates
    if len(numbered) < number:
        raise UserError(f"{folder} has {len(epochs)} checkpoints of epochs and {len(updates)} of updates, not {number}")
    return [numbered[key] for key in sorted(numbered)[-number:]]


def _numbered(folder: Path, pattern: str) -> Dict[int, Path]:
    matches = (re.fullmatch(pattern, path.name) for path in folder.glob("checkpoint*.pt"))
    return {int(match.group(1)): folder / match.group(0) for match in matches if match}


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
        state = _read_or_set_aside(path)
        if state is not None:
            break
    else:
        return 0
    if path.name != LAST:
        print(f"the training resumes from {path}", file=sys.stderr)
        _copy(path, folder / LAST)
    best = state["extra_state"].get("best")
    if best is not None and not _reached(folder / BEST, best):
        others = (other for other in newest_first if other.name != BEST)
        equal = next((other for other in others if _reached(other, best)), None)
        if equal:
            _copy(equal, folder / BEST)
    return state["optimizer_history"][-1]["num_updates"]


def _reached(path: Path, score: float) -> bool:
    """Whether the training had this validation score when it wrote ``path``."""
    state = _read_or_set_aside(path) if path.exists() else None
    return state is not None and state["extra_state"].get("val_loss") == score


def _read_or_set_aside(path: Path) -> Optional[Dict[str, Any]]:
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

"""Read fairseq's checkpoints without running code from them, whatever torch and whoever wrote them."""

import pickle
import re
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, Union

import torch

from . import safe_pickle
from .errors import UserError


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

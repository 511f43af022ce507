"""The mean of several checkpoints of one training."""

import re
from pathlib import Path
from typing import Dict, List, Sequence

import torch

from ..checkpoints import load_checkpoint
from ..errors import UserError
from ..files import atomic_write


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
    with atomic_write(output) as part:
        torch.save(state, part)


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

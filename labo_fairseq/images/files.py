"""Images in folders of classes, decoded when they are asked for; Pillow is needed for these alone."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import UserError
from .randomness import Draws, generator_at

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_SCALE, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of random crops: share of the area, width by height
_TRIES = 10

# the names of the images are part of the settings of a run
_REMEDY = "replace it with another image of that name, or delete it and start over with --fresh"
_CHECKED = 64  # images that a thread checks at a time


class ImageFiles:
    """Images in files, as three-channel squares: a random crop for training, the center otherwise.

    Args:
        paths: of the images.
        labels: (N,), int64.
        size: pixels of a side.
        resize: pixels of the shorter side that the center of ``size`` pixels is cut out of.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor, size: int, resize: int) -> None:
        self.paths, self.labels, self.size, self.resize = list(paths), labels, size, resize

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> Tuple[int, int, int]:
        """Channels, height, width."""
        return 3, self.size, self.size

    def subset(self, indices: Tensor) -> "ImageFiles":
        """The images with these numbers, in their order."""
        return ImageFiles([self.paths[i] for i in indices.tolist()], self.labels[indices], self.size, self.resize)

    def load(self, indices: Tensor, draws: Optional[Draws] = None) -> Tensor:
        """Images (n, 3, size, size), uint8; cropped at random with ``draws``, at the center without.

        Raises:
            UserError: a file that is no image, is damaged, or cannot be read.
        """
        # every image has its own seed, so that what it becomes does not depend on which thread was faster
        seeds: List[Optional[int]] = [None] * len(indices)
        if draws is not None:
            seeds = draws.integers(1 << 62)[0].tolist()
        if not len(indices):  # a process's share of a small batch
            return torch.empty(0, *self.shape, dtype=torch.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            squares = pool.map(self._square, [self.paths[i] for i in indices.tolist()], seeds)
            return torch.stack(list(squares))

    def _square(self, path: Path, seed: Optional[int]) -> Tensor:
        image = decode(path)
        box = center_box(image.width, image.height, self.size / self.resize)
        if seed is not None:
            box = random_box(image.width, image.height, generator_at(seed))
        square = image.resize((self.size, self.size), _bilinear(), box=box)
        return (
            torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
            .view(self.size, self.size, 3)
            .permute(2, 0, 1)
        )


def decode(path: Path) -> Any:
    """The image in a file as a Pillow image of mode RGB, whatever its mode: gray, CMYK, palette, 16 bits.

    Raises:
        UserError: it is no image, is damaged, or cannot be read; or Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise UserError("image files need Pillow: pip install 'labo-fairseq[images]'") from None
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith(("I", "F")):  # Pillow would clip what is above 255
                image = _eight_bits(image)
            return image.convert("RGB")
    # Pillow's decoders raise whatever the bytes lead them to
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(f"{path} cannot be read as an image ({reason}): {_REMEDY}") from None


def check_images(paths: Sequence[Path]) -> None:
    """Decode all of them once, so that what is damaged is told before a training and not hours into it.

    Raises:
        UserError: see :func:`decode`.
    """

    def check(some: Sequence[Path]) -> int:
        for path in some:
            decode(path)
        return len(some)

    parts = [paths[start : start + _CHECKED] for start in range(0, len(paths), _CHECKED)]
    with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(total=len(paths), desc="check", unit="image") as bar:
        for number in pool.map(check, parts):
            bar.update(number)


def _eight_bits(image: Any) -> Any:
    import numpy as np
    from PIL import Image

    values = np.asarray(image, dtype=np.float64)
    if image.mode.startswith("I"):
        values = values / 257  # 65535 = 257 · 255
    elif values.min() >= 0 and values.max() <= 1:  # floating point has two ranges in use, to 1 and to 255
        values = values * 255
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8), "L")


def _bilinear() -> Any:
    from PIL import Image

    return Image.BILINEAR  # type: ignore[attr-defined]


def center_box(width: int, height: int, share: float) -> Tuple[float, float, float, float]:
    """The square in the center whose side is ``share`` of the shorter side: left, upper, right, lower."""
    side = min(width, height) * share
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def random_box(width: int, height: int, generator: torch.Generator) -> Tuple[float, float, float, float]:
    """A rectangle of 8 to 100 % of the area and 3:4 to 4:3 in shape (Szegedy et al., 2015): left, upper, right, lower.

    Where ten tries do not fit into the image, the largest rectangle of such a shape in the center.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    for _ in range(_TRIES):
        area = width * height * uniform(*_SCALE)
        ratio = math.exp(uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        w, h = max(1, round(math.sqrt(area * ratio))), max(1, round(math.sqrt(area / ratio)))
        if w <= width and h <= height:
            left = int(uniform(0, width - w + 1))
            upper = int(uniform(0, height - h + 1))
            return left, upper, left + w, upper + h
    ratio = min(max(width / height, _RATIO[0]), _RATIO[1])
    wide, high = min(width, height * ratio), min(height, width / ratio)
    x, y = (width - wide) / 2, (height - high) / 2
    return x, y, x + wide, y + high


def list_classes(folder: Path) -> Tuple[str, ...]:
    """The classes of a folder: the sorted names of the folders in it.

    Raises:
        UserError: there is no such folder, or fewer than two classes in it.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: it must hold a folder of images for every class")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(names) < 2:
        raise UserError(f"{folder} holds {len(names)} folders of images: at least two classes are needed")
    return tuple(names)


def _is_image(path: Path) -> bool:
    """Whether a path below a folder of classes is that of an image, and not of what notebooks and macOS leave there."""
    return path.suffix.lower() in ENDINGS and not any(part.startswith(".") for part in path.parts)


def list_images(folder: Path, classes: Sequence[str]) -> Tuple[List[Path], Tensor]:
    """The images below ``folder/CLASS``, by class and name, and their labels, the positions in ``classes``.

    Raises:
        UserError: a class without an image, or a folder that is none of the classes.
    """
    strange = sorted(set(list_classes(folder)) - set(classes))
    if strange:
        raise UserError(f"{folder} holds the class {strange[0]!r}, which the training images lack: delete or rename it")
    paths: List[Path] = []
    labels: List[int] = []
    for label, name in enumerate(classes):
        images = sorted(path for path in (folder / name).rglob("*") if _is_image(path.relative_to(folder)))
        if not images:
            raise UserError(f"{folder / name} holds no image ({', '.join(ENDINGS)})")
        paths += images
        labels += [label] * len(images)
    return paths, torch.tensor(labels)

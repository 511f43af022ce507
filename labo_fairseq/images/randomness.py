"""Random numbers that depend on where they are drawn, not on what was drawn before: so a training resumes exactly."""

import hashlib

import torch
from torch import Tensor


def seed_at(*place: object) -> int:
    """A seed in [0, 2^63) for a place such as ``(seed, "augment", epoch, batch)``; the same in every process."""
    digest = hashlib.sha256("/".join(map(str, place)).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_at(*place: object) -> torch.Generator:
    """A generator on the CPU, seeded with :func:`seed_at`."""
    generator = torch.Generator()
    generator.manual_seed(seed_at(*place))
    return generator


class Draws:
    """Random numbers for some images of a batch: drawn for all, so that they do not depend on which ones are wanted.

    Args:
        generator: on the CPU.
        images: of the batch.
        wanted: the positions of the images that numbers are wanted for.
    """

    def __init__(self, generator: torch.Generator, images: int, wanted: slice = slice(None)) -> None:
        self._generator, self._images, self._wanted = generator, images, wanted

    def integers(self, below: int, rows: int = 1) -> Tensor:
        """(rows, n), int64, in [0, below)."""
        return torch.randint(below, (rows, self._images), generator=self._generator)[:, self._wanted]

    def uniform(self) -> Tensor:
        """(n,), float32, in [0, 1)."""
        return torch.rand(self._images, generator=self._generator)[self._wanted]

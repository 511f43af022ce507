"""Augmentation of batches of uint8 images, all random numbers from one generator, and the way to floating point."""

import math
from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .randomness import Draws


@dataclass(frozen=True)
class Augmentation:
    """What happens to training images, in this order."""

    padding: int = 4  # pixels of zeros on every side, out of which the original size is cropped at random
    flip: bool = True  # left and right, with probability ½
    rotation: float = 0.0  # up to so many degrees either way

    def __post_init__(self) -> None:
        if type(self.padding) is not int or not 0 <= self.padding <= 64:
            raise ValueError(f"padding must be an integer from 0 to 64, got {self.padding}")
        if not isinstance(self.flip, bool):
            raise ValueError(f"flip must be true or false, got {self.flip}")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation must lie in [0, 180] degrees, got {self.rotation}")


def augment(pixels: Tensor, what: Augmentation, draws: Draws) -> Tensor:
    """Augmented copies of images (N, C, H, W), uint8, of the same shape; ``draws`` are for them."""
    if what.padding:
        pixels = random_crop(pixels, what.padding, draws)
    if what.flip:
        flipped = draws.uniform() < 0.5
        pixels = torch.where(flipped[:, None, None, None], pixels.flip(-1), pixels)
    if what.rotation:
        angles = (draws.uniform() * 2 - 1) * math.radians(what.rotation)
        pixels = rotate(pixels, angles)
    return pixels


def random_crop(pixels: Tensor, padding: int, draws: Draws) -> Tensor:
    """Images (N, C, H, W) moved by up to ``padding`` pixels in both directions, zeros where nothing was."""
    count, _, height, width = pixels.shape
    padded = F.pad(pixels, [padding] * 4)
    top, left = draws.integers(2 * padding + 1, rows=2)
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    images = torch.arange(count)[:, None, None]
    # advanced indices on both sides of the slice put the channels last
    return padded[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def rotate(pixels: Tensor, angles: Tensor) -> Tensor:
    """Images (N, C, H, W), uint8, turned by ``angles`` (N,) in radians about their centers, bilinear, zeros outside."""
    if not len(pixels):  # a process's share of a small batch; torch takes none
        return pixels
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    ratio = pixels.size(-1) / pixels.size(-2)
    matrix = torch.stack([cosine, -sine / ratio, zero, sine * ratio, cosine, zero], dim=-1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    turned = F.grid_sample(pixels.float(), grid, padding_mode="zeros", align_corners=False)
    return turned.round().clamp(0, 255).to(torch.uint8)


def normalize(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x/255 − mean)/std of images (N, C, H, W), uint8, by channel, float32."""
    shape = (1, len(mean), 1, 1)
    means, stds = (torch.tensor(values, device=pixels.device).view(shape) for values in (mean, std))
    return (pixels.float() / 255 - means) / stds

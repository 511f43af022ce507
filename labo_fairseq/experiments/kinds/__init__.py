"""The kinds of runs. A new one is a module here, and an item of :data:`KINDS`."""

from pathlib import Path
from typing import Tuple

from ..image_result import is_image_run
from .base import GridRun, Kind, Place, Scored, Shown, Subject
from .images import Images
from .translation import Translation

__all__ = ["IMAGES", "KINDS", "TRANSLATION", "GridRun", "Kind", "Place", "Scored", "Shown", "Subject", "kind_of"]

TRANSLATION, IMAGES = Translation(), Images()
KINDS: Tuple[Kind, ...] = (TRANSLATION, IMAGES)


def kind_of(folder: Path) -> Kind:
    """The kind of the finished run in ``folder``; translation where there is none."""
    return IMAGES if is_image_run(folder) else TRANSLATION

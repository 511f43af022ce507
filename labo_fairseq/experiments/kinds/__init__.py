"""The kinds of runs. A new one is a module here, and an item of :data:`KINDS`."""

from pathlib import Path
from typing import Sequence, Tuple

from ...errors import UserError
from ...evaluation.runs import is_image_run
from .base import GridRun, Kind, Place, Scored, Shown, Subject
from .images import Images
from .translation import Translation

__all__ = ["IMAGES", "KINDS", "TRANSLATION", "GridRun", "Kind", "Place", "Scored", "Shown", "Subject", "kind_of"]

TRANSLATION, IMAGES = Translation(), Images()
KINDS: Tuple[Kind, ...] = (TRANSLATION, IMAGES)


def kind_of(folders: Sequence[Path]) -> Kind:
    """The kind of the finished runs in ``folders``; translation where there are none.

    Raises:
        UserError: they are of different kinds, or the result of one is damaged.
    """
    on_images = {folder: is_image_run(folder) for folder in folders if (folder / "result.json").is_file()}
    images = [folder for folder, known in on_images.items() if known]
    translations = [folder for folder, known in on_images.items() if not known]
    if images and translations:
        both = f"{images[0]} is a run on images and {translations[0]} one of translation"
        raise UserError(f"{both}: name runs of one kind")
    return IMAGES if images else TRANSLATION

"""Frozen models whose features an encoder is aligned with; the two tables name them.

Heavy libraries (open_clip, transformers) are imported when a teacher is loaded.
"""

from collections.abc import Callable

from pointloom.teachers.clip import load_clip
from pointloom.teachers.dino import load_dino
from pointloom.teachers.interfaces import FittedTower, ImageTower, TextTower
from pointloom.teachers.offline_image import Descriptor
from pointloom.teachers.offline_text import fit_bag_of_words
from pointloom.teachers.queries import TextTeacher, open_text_teacher

TEXT_TEACHERS: dict[str, Callable[..., TextTower]] = {"bag_of_words": fit_bag_of_words, "clip": load_clip}
"""Name -> builder of a text teacher."""

IMAGE_TEACHERS: dict[str, Callable[..., ImageTower]] = {
    "clip": load_clip,
    "dinov2": load_dino,
    "shape": lambda **options: Descriptor("shape", **options),
    "look": lambda **options: Descriptor("look", **options),
}
"""Name -> builder of an image teacher."""

__all__ = [
    "IMAGE_TEACHERS",
    "TEXT_TEACHERS",
    "FittedTower",
    "ImageTower",
    "TextTeacher",
    "TextTower",
    "open_text_teacher",
]

"""Prompts around class names, and the mean over them.

Zero-shot classification compares a shape with sentences such as "a photo of a chair". One sentence is a noisy stand-in
for a class; ULIP and its successors average 64 of them. The set here has their structure (a phrase for point clouds,
scenes, plain photos, pairs of "a" and "the" over properties of pictures and over materials) in words of our own, so
figures obtained with it are not comparable with published ones to the last digit.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from pointloom.data.feature_files import unit

_PICTURES = (
    *("good", "poor", "pretty", "fine", "strange", "little", "big", "clean", "dusty", "bright", "dim"),
    *("barely visible", "coarse", "cut off", "near", "badly compressed", "out of focus", "blocky", "grey"),
)
_OBJECTS = ("plastic", "toy", "plush", "comic", "stitched", "painted")
_OPENINGS = (
    "a point cloud of a {}.",
    *("there is a {} in this room.", "there is the {} in this room.", "a {} stands in this room."),
    *("this room holds one {}.", "a room with a {}."),
    *("my snapshot of a {}.", "my snapshot of the {}.", "my snapshot of this {}."),
    *("a picture of a {}.", "a picture of my {}.", "a picture of the {}.", "a picture of one {}."),
    "a picture of several {}.",
)
PROMPTS: dict[str, tuple[str, ...]] = {
    "name": ("{}",),
    "photo": ("a photo of a {}.",),
    "point_cloud": ("a point cloud of a {}.",),
    "averaged_64": (
        *_OPENINGS,
        *(f"a {word} picture of {article} {{}}." for word in _PICTURES for article in ("a", "the")),
        *(f"{article} {word} {{}}." for word in _OBJECTS for article in ("a", "the")),
    ),
}
"""Name -> sentences with ``{}`` for the class name."""


def clean_name(name: str) -> str:
    """Return a class name as people write it: blanks for underscores, a sense of the word stays in parentheses."""
    return " ".join(name.replace("_", " ").split())


def class_vectors(
    encode_text: Callable[[Sequence[str]], NDArray[np.float32]], names: Sequence[str], *, prompts: Sequence[str]
) -> Float[np.ndarray, "c d"]:
    """Return one unit vector per class: its prompts encoded, normalised, averaged and normalised again.

    Args:
        encode_text: Of the text teacher.
        names: Class names as they go into the prompts.
        prompts: Sentences with ``{}`` for the name.
    """
    value = unit(encode_text([prompt.replace("{}", name) for name in names for prompt in prompts]))
    return unit(value.reshape(len(names), len(prompts), -1).mean(axis=1))

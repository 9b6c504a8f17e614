"""Views as networks want them: batched, resized straight to a square, normalised; and depth as a grey image."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

DEPTH_IMAGE = "near_bright"
DEPTH_FALLOFF = 0.4


def depth_image(depth: Float[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "n h w 3"]:
    """Return metric depth as grey images: the nearest pixel white, farther ones darker, the background black.

    Brightness falls by 40 % of white per radius of the object, so that its far side (two radii at most) still differs
    from the background. The scale is the same in all views; only the nearest point moves.

    Args:
        depth: In radii of the object, 0 = background.
    """
    seen = depth > 0
    nearest = np.where(seen, depth, np.inf).min(axis=(1, 2), keepdims=True)
    with np.errstate(invalid="ignore"):  # a view without any surface: inf - 0
        bright = np.where(seen, 1 - DEPTH_FALLOFF * (depth - nearest), 0.0)
    grey = (255 * np.clip(bright, 0, 1) + 0.5).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def normalised(
    views: UInt8[np.ndarray, "n h w 3"],
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
) -> Float[Tensor, "n 3 {size} {size}"]:
    """Return views as the input of a vision transformer.

    Resizing is bicubic with antialiasing, and is left out where the size is right.

    Note:
        The whole view is resized to the square. The models' own evaluation transforms enlarge a photo and cut out its
        centre; rendered views have their margin already, and a cut would lose the ends of objects.
    """
    pixel = torch.tensor(views, device=device).permute(0, 3, 1, 2).float() / 255
    if pixel.shape[-2:] != (size, size):
        pixel = functional.interpolate(pixel, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    shift, scale = (pixel.new_tensor(values)[:, None, None] for values in (mean, std))
    return (pixel - shift) / scale


def batches(views: NDArray[np.uint8], size: int) -> Iterator[NDArray[np.uint8]]:
    """Cut views into batches of at most ``size``."""
    for start in range(0, len(views), size):
        yield views[start : start + size]

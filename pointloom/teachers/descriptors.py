"""Hand-crafted image descriptors in batches: histograms of oriented gradients, coarse pictures, colour histograms."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

ORIENTATIONS = 9
CLIP = 0.2
_EPS = 1e-5


def histograms_of_gradients(image: Float[Tensor, "n h w"], *, cell: int) -> Float[Tensor, "n d"]:
    """Return histograms of oriented gradients (Dalal and Triggs, 2005).

    Central differences (0 at the border), nine orientations without sign, each gradient shared linearly between its two
    nearest orientations; sums over square cells; every block of 2 x 2 cells is divided by its length, cut at 0.2 and
    divided again.

    Args:
        image: Any range; sides must be multiples of ``cell`` and at least two cells.
        cell: Side of a cell in pixels.

    Note:
        Gradients are not shared between neighbouring cells (no spatial interpolation).
    """
    dy, dx = torch.zeros_like(image), torch.zeros_like(image)
    dy[:, 1:-1] = image[:, 2:] - image[:, :-2]
    dx[:, :, 1:-1] = image[:, :, 2:] - image[:, :, :-2]
    magnitude = torch.hypot(dy, dx)
    position = torch.remainder(torch.atan2(dy, dx) / math.pi * ORIENTATIONS, ORIENTATIONS)
    low = position.floor().clamp(max=ORIENTATIONS - 1)
    upper = (position - low) * magnitude
    votes = torch.zeros(len(image), ORIENTATIONS, *image.shape[1:], dtype=image.dtype, device=image.device)
    votes.scatter_(1, low.long()[:, None], (magnitude - upper)[:, None])
    votes.scatter_add_(1, ((low.long() + 1) % ORIENTATIONS)[:, None], upper[:, None])
    cells = functional.avg_pool2d(votes, cell) * cell**2
    blocks = torch.cat([cells[:, :, y : y - 1 or None, x : x - 1 or None] for y in (0, 1) for x in (0, 1)], dim=1)
    return _normalised_blocks(blocks).flatten(1)


def _normalised_blocks(blocks: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    for limit in (CLIP, math.inf):
        blocks = (blocks / (blocks.square().sum(dim=1, keepdim=True) + _EPS**2).sqrt()).clamp(max=limit)
    return blocks


def coarse(image: Float[Tensor, "n c h w"], *, side: int) -> Float[Tensor, "n d"]:
    """Return the picture at ``side`` x ``side`` pixels, each the mean of its area."""
    return functional.adaptive_avg_pool2d(image, side).flatten(1)


def color_histogram(
    image: Float[Tensor, "n 3 h w"], weight: Float[Tensor, "n h w"], *, bins: int
) -> Float[Tensor, "n {bins}**3"]:
    """Return the shares of ``bins``³ colours in the weighted pixels; zero where nothing has a weight.

    Args:
        image: 0 to 1.
        weight: 0 = not counted.
        bins: Per channel.
    """
    level = (image * bins).long().clamp(max=bins - 1)
    index = (level[:, 0] * bins + level[:, 1]) * bins + level[:, 2]
    counts = torch.zeros(len(image), bins**3, dtype=image.dtype, device=image.device)
    counts.scatter_add_(1, index.flatten(1), weight.flatten(1))
    return counts / weight.sum(dim=(1, 2)).clamp(min=1)[:, None]

"""Hand-crafted image descriptors in batches: histograms of oriented gradients, coarse pictures, colour histograms."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

ORIENTATIONS = 9
CLIP = 0.2
_EPS = 1e-5


def histograms_of_gradients(image: Float[Tensor, "n h w"], *, cells: Sequence[int]) -> list[Float[Tensor, "n _"]]:
    """Return histograms of oriented gradients (Dalal and Triggs, 2005) at several sizes of the cell.

    Central differences (0 at the border), nine orientations without sign, each gradient shared linearly between its two
    nearest orientations; sums over square cells; every block of 2 x 2 cells is divided by its length, cut at 0.2 and
    divided again.

    Args:
        image: Any range; sides must be multiples of every cell and at least two cells.
        cells: Sides of the cells in pixels, each a multiple of the first.

    Note:
        Gradients are not shared between neighbouring cells (no spatial interpolation).
    """
    smallest = _cell_sums(image, cells[0])
    found = []
    for cell in cells:
        sums = functional.avg_pool2d(smallest, cell // cells[0], divisor_override=1)
        blocks = torch.cat([sums[:, :, y : y - 1 or None, x : x - 1 or None] for y in (0, 1) for x in (0, 1)], dim=1)
        found.append(_normalised_blocks(blocks).flatten(1))
    return found


def _cell_sums(image: Float[Tensor, "n h w"], cell: int) -> Float[Tensor, "n o hc wc"]:
    """Return the histogram of orientations of every cell."""
    N, H, W = image.shape
    dy, dx = torch.zeros_like(image), torch.zeros_like(image)
    dy[:, 1:-1] = image[:, 2:] - image[:, :-2]
    dx[:, :, 1:-1] = image[:, :, 2:] - image[:, :, :-2]
    magnitude = torch.hypot(dy, dx)
    position = torch.remainder(torch.atan2(dy, dx) * (ORIENTATIONS / math.pi), ORIENTATIONS)
    low = position.long().clamp(max=ORIENTATIONS - 1)
    upper = (position - low) * magnitude
    row = torch.arange(H, device=image.device) // cell
    column = torch.arange(W, device=image.device) // cell
    place = row[:, None] * (W // cell) + column
    size = (H // cell) * (W // cell)
    sums = torch.zeros(N, ORIENTATIONS * size, dtype=image.dtype, device=image.device)
    sums.scatter_add_(1, (low * size + place).flatten(1), (magnitude - upper).flatten(1))
    sums.scatter_add_(1, ((low + 1) % ORIENTATIONS * size + place).flatten(1), upper.flatten(1))
    return sums.view(N, ORIENTATIONS, H // cell, W // cell)


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

"""Headings and sizes as detectors predict them: a class, and how far the value is from the middle of the class."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class HeadingBins:
    """Equal parts of the circle, the first around heading 0 (VoteNet and 3DETR, code).

    Attributes:
        number: How many; 1 is for axis-aligned boxes, whose heading is always 0.
    """

    number: int

    def encode(self, heading: Float[Tensor, "*batch"]) -> tuple[Int[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return the part and how far from its middle, in [-1, 1] from border to border."""
        part = 2 * math.pi / self.number
        place = torch.remainder(heading / part + 0.5, self.number)
        index = place.floor().clamp_max(self.number - 1)
        return index.long(), 2 * (place - index) - 1

    def decode(self, index: Int[Tensor, "*batch"], residual: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return headings in (-pi, pi]; 0 where there is one part only."""
        if self.number == 1:
            return torch.zeros_like(residual)
        heading = (index + residual / 2) * (2 * math.pi / self.number)
        return torch.where(heading > math.pi, heading - 2 * math.pi, heading)


def chosen(values: Float[Tensor, "*values"], index: Int[Tensor, "*batch"]) -> Float[Tensor, "*chosen"]:
    """Return the value that belongs to a class, from one value per class.

    Args:
        values: Dimensions of ``index``, one for the classes, then those of a value, if any.
        index: Class.
    """
    place = index.unsqueeze(-1)
    while place.ndim < values.ndim:
        place = place.unsqueeze(-1)
    shape = (*index.shape, 1, *values.shape[index.ndim + 1 :])
    return values.gather(index.ndim, place.expand(shape)).squeeze(index.ndim)

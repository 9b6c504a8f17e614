"""Curves that visit every voxel of a grid: z-order (Morton) and Hilbert, 16 bits per axis, as integer codes."""

import torch
from jaxtyping import Int
from torch import Tensor

BITS = 16
CODE_BITS = 3 * BITS
_SPREAD = (  # shift and mask of each step that moves the bits of a number three places apart
    (32, 0x1F00000000FFFF),
    (16, 0x1F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)


def spread_bits(number: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """Put two zero bits in front of every bit of numbers below 2^16."""
    number = number.long()
    for shift, mask in _SPREAD:
        number = (number | (number << shift)) & mask
    return number


def z_order(coord: Int[Tensor, "p 3"]) -> Int[Tensor, " p"]:
    """Return Morton codes: bits of x, y, z in turn, x first; a voxel's parent has the code shifted by 3."""
    x, y, z = spread_bits(coord).unbind(-1)
    return (x << 2) | (y << 1) | z


def hilbert(coord: Int[Tensor, "p 3"]) -> Int[Tensor, " p"]:
    """Return places along the Hilbert curve; voxels that follow each other on it share a face.

    The transform between axes and the curve is that of Skilling, "Programming the Hilbert curve" (2004).
    """
    axes = list(coord.long().unbind(-1))
    for bit in range(BITS - 1, 0, -1):
        below = (1 << bit) - 1
        for axis in range(3):
            turned = (axes[axis] >> bit) & 1 == 1
            swap = (axes[0] ^ axes[axis]) & below
            flipped = axes[0] ^ below
            axes[axis] = torch.where(turned, axes[axis], axes[axis] ^ swap)
            axes[0] = torch.where(turned, flipped, axes[0] ^ swap) if axis else torch.where(turned, flipped, axes[0])
    return _from_gray(z_order(torch.stack(axes, dim=-1)))


def _from_gray(code: Int[Tensor, " p"]) -> Int[Tensor, " p"]:
    """Return the numbers of Gray codes of 48 bits: each bit is the parity of the bits down to it."""
    shift = 1
    while shift < CODE_BITS:
        code = code ^ (code >> shift)
        shift *= 2
    return code


def _swapped(coord: Int[Tensor, "p 3"]) -> Int[Tensor, "p 3"]:
    return coord[:, [1, 0, 2]]


CURVES = {
    "z_xyz": z_order,
    "z_yxz": lambda coord: z_order(_swapped(coord)),
    "hilbert_xyz": hilbert,
    "hilbert_yxz": lambda coord: hilbert(_swapped(coord)),
}
"""Name -> function from places in a grid to codes, in the order in which Masked Scene Modeling lists them."""

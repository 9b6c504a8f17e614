"""Features as colours: their three main directions as red, green and blue."""

from collections.abc import Iterator
from functools import reduce

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

_ROWS = 2**14  # rows that are held in double precision at once


def pca_colors(feature: Float[Tensor, "p c"]) -> UInt8[Tensor, "p 3"]:
    """Return a colour per row; similar features get similar colours.

    The projections on the three main directions are stretched to 0..255 between their least and largest values within
    twice the median deviation from the median, so that a few outliers do not take all the contrast. The sign of a
    direction is such that its largest component is positive: the colours are the same in every run. Memory beside the
    features is that of a block of rows in double precision.
    """
    mean = _summed(part.sum(0) for part in _blocks(feature)) / len(feature)
    covariance = _summed((part - mean).t() @ (part - mean) for part in _blocks(feature))
    _, directions = torch.linalg.eigh(covariance)
    main = directions[:, -3:].flip(-1)
    main = main * main.gather(0, main.abs().argmax(0, keepdim=True)).sign()
    projected = torch.cat([(part - mean) @ main for part in _blocks(feature)])
    projected = torch.nn.functional.pad(projected, (0, 3 - main.shape[1]))
    median = projected.median(0).values
    deviation = (projected - median).abs()
    usual = deviation <= 2 * deviation.median(0).values
    low = torch.where(usual, projected, torch.inf).amin(0)
    high = torch.where(usual, projected, -torch.inf).amax(0)
    shares = (projected - low) / (high - low).clamp_min(1e-12)
    return (255 * shares.clamp(0, 1)).round().to(torch.uint8)


def _blocks(feature: Float[Tensor, "p c"]) -> Iterator[Float[Tensor, "_ c"]]:
    return (part.double() for part in feature.split(_ROWS))


def _summed(parts: Iterator[Tensor]) -> Tensor:
    return reduce(torch.add, parts)

"""Embedded image teachers: hand-crafted descriptors, whitened in part.

They need no download. ``shape`` looks at metric depth (gradient histograms at three cell sizes, coarse depth),
``look`` at the colour picture (gradient histograms of brightness, colour histogram, coarse colours). They know contours
and colours, not things: no description of a picture in words can be compared with them.
"""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pointloom.errors import DataError
from pointloom.teachers.descriptors import coarse, color_histogram, histograms_of_gradients

VERSION = 1
SIDE = 64
CELLS = (8, 16, 32)
BATCH = 32
BACKDROP = 0.3
COLOR_BINS = 4
FLOOR, TINY = 1e-6, 1e-12


def shape_parts(depth: Float[Tensor, "n h w"]) -> list[Float[Tensor, "n _"]]:
    """Describe depth (in radii, 0 = background): gradient histograms and a coarse picture, per part."""
    seen = depth > 0
    nearest = torch.where(seen, depth, torch.inf).amin(dim=(1, 2), keepdim=True)
    nearest = torch.where(nearest.isfinite(), nearest, 0.0)
    behind = torch.where(seen, depth - nearest, 0.0)
    farthest = behind.amax(dim=(1, 2), keepdim=True)
    relief = functional.adaptive_avg_pool2d(torch.where(seen, behind, farthest + BACKDROP), SIDE)
    bright = torch.where(seen, 1 - 0.4 * behind, 0.0)
    return [*histograms_of_gradients(relief, cells=CELLS), coarse(bright[:, None], side=16)]


def look_parts(rgb: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n _"]]:
    """Describe pictures (0 to 1, white background): gradient histograms, colour histogram, coarse colours, per part."""
    small = functional.adaptive_avg_pool2d(rgb, SIDE)
    bright = small.mean(dim=1)
    inked = (small.amin(dim=1) < 0.98).to(small.dtype)
    colors = color_histogram(small, inked, bins=COLOR_BINS).sqrt()
    return [*histograms_of_gradients(bright, cells=CELLS), colors, coarse(small, side=8)]


class Descriptor:
    """Descriptors of views, projected to the directions in which training views differ most.

    Attributes:
        name: For people.
        identity: What decides its numbers beside the training views; part of cache keys.
        dim: Width after the projection.
    """

    def __init__(self, kind: Literal["shape", "look"], *, dim: int, whitening: float, device: torch.device) -> None:
        self.name = f"{kind} descriptor ({dim} components)"
        self.dim = dim
        self.identity: dict[str, Any] = {
            "library": "pointloom",
            "teacher": kind,
            "version": VERSION,
            "dim": dim,
            "whitening": whitening,
        }
        self._kind = kind
        self._whitening = whitening
        self._device = device
        self._mean: Tensor | None = None
        self._projection: Tensor | None = None

    def encode_image(
        self, views: UInt8[np.ndarray, "n h w 3"] | Float32[np.ndarray, "n h w"]
    ) -> Float32[np.ndarray, "n r"]:
        """Return the descriptors before any projection, parts side by side.

        Args:
            views: Colour pictures for ``look``, metric depth in radii (0 = background) for ``shape``.
        """
        found = []
        for start in range(0, len(views), BATCH):
            parts = self._parts(torch.tensor(views[start : start + BATCH], device=self._device).float())
            found.append(torch.cat(parts, dim=1).cpu().numpy())
        return np.concatenate(found)

    def fit(self, blocks: Iterable[NDArray[np.float32]]) -> None:
        """Learn the projection from descriptors of training views: principal components, softly whitened.

        First every part (one size of the cells, colours...) is scaled to the same total variance. Then a component of
        variance v is divided by ``v ** (whitening / 2)``: 0 is plain principal components, in which the few largest
        rule every comparison, 1 makes all of them equal, noise too.

        Args:
            blocks: (n, R) descriptors of training views; passed once, so that any number of them fits into memory.

        Raises:
            DataError: There are no training views.
        """
        widths = [part.shape[1] for part in self._parts(torch.zeros(1, SIDE, SIDE, *self._channels))]
        count, total = 0, torch.zeros(sum(widths), dtype=torch.float64)
        products = torch.zeros(sum(widths), sum(widths), dtype=torch.float64)
        for block in blocks:
            value = torch.from_numpy(block).double()
            count, total, products = count + len(value), total + value.sum(0), products.addmm_(value.T, value)
        if count == 0:
            raise DataError(f"teacher {self._kind}: no training object has a usable view to learn from; see render")
        mean = total / count
        covariance = products / count - mean.outer(mean)
        strength = [float(part.sum()) for part in covariance.diagonal().split(widths)]
        balance = torch.cat([mean.new_full((w,), max(s, TINY) ** -0.5) for w, s in zip(widths, strength, strict=True)])
        variance, direction = _largest(balance[:, None] * covariance * balance, self.dim)
        scale = variance.clamp(min=float(variance[0]) * FLOOR + TINY) ** (-self._whitening / 2)
        self._mean, self._projection = mean.float(), (balance[:, None] * direction * scale).float()

    def project(self, raw: Float32[np.ndarray, "n r"]) -> Float32[np.ndarray, "n d"]:
        """Return descriptors in the learned directions."""
        assert self._mean is not None
        assert self._projection is not None
        return ((torch.from_numpy(raw) - self._mean) @ self._projection).numpy()

    @property
    def _channels(self) -> tuple[int, ...]:
        return () if self._kind == "shape" else (3,)

    def _parts(self, views: Tensor) -> list[Tensor]:
        return shape_parts(views) if self._kind == "shape" else look_parts(views.permute(0, 3, 1, 2) / 255)


def _largest(matrix: Float[Tensor, "r r"], num: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "r k"]]:
    """Return the largest eigenvalues and their directions; the largest entry of a direction is positive."""
    from scipy.linalg import eigh

    size = len(matrix)
    value, direction = eigh(matrix.numpy(), subset_by_index=(max(0, size - num), size - 1))
    flipped = np.sign(np.take_along_axis(direction, np.abs(direction).argmax(axis=0)[None], axis=0))
    return torch.from_numpy(value[::-1].copy()), torch.from_numpy((direction * flipped)[:, ::-1].copy())

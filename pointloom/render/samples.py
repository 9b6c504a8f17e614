"""Several samples per pixel: where they lie, and how they become one picture.

Colour is the mean of all samples of a pixel, which smooths edges. Depth is that of one sample, because the mean of two
surfaces is none; the grid of samples is laid so that this one is in the pixel's centre, where K of the rig has it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numpy.typing import NDArray

from pointloom.render.cameras import Rig

_REACH = 1.01  # half of the range of depths around the origin; the bounding sphere has radius 1


@dataclass(frozen=True)
class Samples:
    """One view as a renderer draws it.

    Attributes:
        rgb: (S, S, 3) colour of all samples, background white.
        depth: (H, W) eye depth in the pixels' centres in radii, 0 for the background.
    """

    rgb: UInt8[np.ndarray, "s s 3"]
    depth: Float32[np.ndarray, "h w"]


@dataclass(frozen=True)
class SampleGrid:
    """Samples of all cameras of a rig, ``supersample`` x ``supersample`` in every pixel.

    Attributes:
        rig: The cameras.
        supersample: Samples along each side of a pixel.
    """

    rig: Rig
    supersample: int

    @property
    def side(self) -> int:
        """Samples along each side of a picture."""
        return self.rig.size * self.supersample

    @property
    def intrinsics(self) -> Float64[np.ndarray, "3 3"]:
        """K in samples instead of pixels; moved by up to half a sample so that one is in every pixel's centre."""
        scaled = self.rig.intrinsics * np.array([[self.supersample], [self.supersample], [1]])
        scaled[:2, 2] += self.supersample // 2 + 0.5 - self.supersample / 2
        return scaled

    @cached_property
    def projections(self) -> Float64[np.ndarray, "v 4 4"]:
        """From the object frame to OpenGL's clip space, with the first row of the picture at the top."""
        K, side = self.intrinsics, self.side
        near, far = self.rig.distance - _REACH, self.rig.distance + _REACH
        clip = np.zeros((4, 4))
        clip[0, 0], clip[0, 2] = 2 * K[0, 0] / side, 1 - 2 * K[0, 2] / side
        clip[1, 1], clip[1, 2] = -2 * K[1, 1] / side, 1 - 2 * K[1, 2] / side
        clip[2, 2:] = (near + far) / (near - far), 2 * near * far / (near - far)
        clip[3, 2] = -1
        return clip @ np.linalg.inv(self.rig.poses)

    def eye_depth(self, buffer: Float32[np.ndarray, "s s"]) -> Float32[np.ndarray, "h w"]:
        """Turn OpenGL's depth buffer (0 to 1, 1 is the background) into eye depth in the pixels' centres."""
        value = self.centers(buffer)
        near, far = self.rig.distance - _REACH, self.rig.distance + _REACH
        depth = near * far / (far - value * (far - near))
        return np.where(value < 1, depth, 0).astype(np.float32)

    def centers(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the samples in the pixels' centres."""
        first = self.supersample // 2
        return samples[first :: self.supersample, first :: self.supersample]

    def directions(self) -> Float64[np.ndarray, "p 3"]:
        """Return one ray per sample in the camera's frame, row by row; after length t it is at eye depth t."""
        K = self.intrinsics
        row, column = np.divmod(np.arange(self.side**2), self.side)
        x, y = (column + 0.5 - K[0, 2]) / K[0, 0], (row + 0.5 - K[1, 2]) / K[1, 1]
        return np.stack([x, -y, -np.ones_like(x)], axis=1)


def shrink(rgb: UInt8[np.ndarray, "s s 3"], supersample: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return the mean colour of the samples of every pixel."""
    from PIL import Image

    return np.asarray(Image.fromarray(rgb).reduce(supersample))

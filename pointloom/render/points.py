"""Point splatting: a point cloud and a camera in, RGB and depth out, with a z-buffer and no graphics library.

The world is the store's object frame (+Z up, right-handed, bounding sphere of radius 1). A pixel shows the nearest
point whose disc covers it. ``shade_depth`` darkens pixels that lie behind their surroundings (eye-dome lighting), which
makes bare points readable without normals or lights.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

DEFAULT_COLOR = (110, 130, 160)


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A camera that looks at the origin.

    Attributes:
        azimuth: Degrees about +Z from +X towards +Y.
        elevation: Degrees above the horizon.
        projection: ``orthographic`` or ``perspective``.
        extent: Half of the picture's width in world units, measured in the plane through the origin.
        distance: Distance from the origin to the camera in world units; for a perspective camera it sets the
            strength of the perspective, for an orthographic one it is only the zero of depth.
    """

    azimuth: float = -60.0
    elevation: float = 25.0
    projection: Literal["orthographic", "perspective"] = "perspective"
    extent: float = 1.08
    distance: float = 4.0

    def axes(self) -> Float32[np.ndarray, "3 3"]:
        """Return the rows right, up and towards-the-camera as unit vectors in world coordinates."""
        azimuth, elevation = np.deg2rad(self.azimuth), np.deg2rad(self.elevation)
        toward = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
        right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        return np.stack([right, np.cross(toward, right), toward]).astype(np.float32)

    def project(self, coord: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
        """Return (x, y, depth) per point: x right and y up in [-1, 1] inside the picture, depth > 0 before the camera.

        Points behind a perspective camera get a depth <= 0 and are not drawn.
        """
        view = coord @ self.axes().T
        depth = np.float32(self.distance) - view[:, 2]
        scale = np.full_like(depth, 1.0 / self.extent)
        if self.projection == "perspective":
            scale = scale * np.float32(self.distance) / np.where(depth > 0, depth, np.float32(np.inf))
        return np.column_stack([view[:, 0] * scale, view[:, 1] * scale, depth]).astype(np.float32)


@dataclass(frozen=True)
class Splat:
    """A rendered picture.

    Attributes:
        rgb: (H, W, 3) colour, background white.
        depth: (H, W) distance from the camera plane in world units, ``inf`` where nothing was hit.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]


def splat_points(
    coord: Float32[np.ndarray, "n 3"],
    *,
    color: UInt8[np.ndarray, "_ 3"] | None = None,
    camera: Camera | None = None,
    size: int = 128,
    radius: float = 1.0,
) -> Splat:
    """Draw points as discs of ``radius`` pixels; the nearest disc wins every pixel.

    Args:
        coord: Points in the object frame; rows that are not finite are skipped.
        color: 0..255 per point; a slate blue where it is None.
        camera: None is the default three-quarter view.
        size: Width and height in pixels.
        radius: Disc radius in pixels; a value below 1 draws single pixels.

    Raises:
        ValueError: ``size`` is below 1, or ``color`` has not one row per point.
    """
    if size < 1:
        raise ValueError(f"size is {size}, expected at least 1 pixel")
    if color is not None and len(color) != len(coord):
        raise ValueError(f"color has {len(color)} rows for {len(coord)} points, expected one per point")
    projected = (camera or Camera()).project(coord)
    shown = np.isfinite(projected).all(axis=1) & (projected[:, 2] > 0)
    order = np.flatnonzero(shown)[np.argsort(-projected[shown, 2], kind="stable")]  # far to near: the last write stays
    x, y, depth = projected[order].T
    column = np.floor((x + 1) * 0.5 * size).astype(np.int64)
    row = np.floor((1 - y) * 0.5 * size).astype(np.int64)

    steps = _disc(radius)
    rows, columns = row[:, None] + steps[:, 0], column[:, None] + steps[:, 1]
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    pixel = (rows * size + columns)[inside]
    source = np.broadcast_to(np.arange(len(order))[:, None], rows.shape)[inside]

    nearest = np.full(size * size, -1, dtype=np.int64)
    nearest[pixel] = source
    hit = nearest >= 0
    rgb = np.full((size * size, 3), 255, dtype=np.uint8)
    rgb[hit] = DEFAULT_COLOR if color is None else color[order][nearest[hit]]
    z = np.full(size * size, np.inf, dtype=np.float32)
    z[hit] = depth[nearest[hit]]
    return Splat(rgb=rgb.reshape(size, size, 3), depth=z.reshape(size, size))


def shade_depth(
    splat: Splat, *, strength: float = 1.6, outline: float = 0.35, reach: int = 2
) -> UInt8[np.ndarray, "h w 3"]:
    """Darken pixels whose neighbours are nearer to the camera, and the rim of the object, so that white stays visible.

    Args:
        splat: What ``splat_points`` returned.
        strength: Darkening per world unit of depth behind the eight neighbours; 0 switches it off.
        outline: Darkening of a pixel that is wholly surrounded by background; 0 switches it off.
        reach: Distance in pixels to the compared neighbours.
    """
    hit = np.isfinite(splat.depth)
    depth = np.where(hit, splat.depth, np.float32(1e6))  # the background is far: it never darkens anything
    padded = np.pad(depth, reach, constant_values=np.float32(1e6))
    height, width = depth.shape
    behind, rim = np.zeros_like(depth), np.zeros_like(depth)
    for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
        top, left = reach * (1 + dy), reach * (1 + dx)
        neighbor = padded[top : top + height, left : left + width]
        behind += np.clip(depth - neighbor, 0.0, 0.25)
        rim += neighbor >= 1e6
    shade = np.where(hit, np.exp(-strength * behind - outline * rim / 8), 1.0)
    return np.asarray(splat.rgb * shade[..., None] + 0.5, dtype=np.uint8)


def draw_points(
    coord: Float32[np.ndarray, "n 3"],
    *,
    color: UInt8[np.ndarray, "n 3"] | None = None,
    camera: Camera | None = None,
    size: int = 128,
    radius: float = 1.5,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a shaded thumbnail: splat at twice the size, shade, average 2 x 2 pixels. ``radius`` is in final pixels."""
    splat = splat_points(coord, color=color, camera=camera, size=2 * size, radius=2 * radius)
    large = shade_depth(splat).reshape(size, 2, size, 2, 3)
    return np.asarray(large.mean(axis=(1, 3)) + 0.5, dtype=np.uint8)


def _disc(radius: float) -> np.ndarray:
    """Return the (K, 2) integer offsets (row, column) of a filled disc."""
    reach = int(np.floor(radius))
    grid = np.arange(-reach, reach + 1)
    offsets = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.asarray(offsets[(offsets**2).sum(axis=1) <= max(radius, 0.0) ** 2])

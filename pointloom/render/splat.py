"""Draw clouds, which have no faces: every point is a disc that faces the camera."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, UInt8

from pointloom.render.mesh import AMBIENT, HEADLIGHT
from pointloom.render.points import Splat, splat_points
from pointloom.render.samples import SampleGrid, Samples

_COVERED_NEIGHBORS = 5  # of 8, so that holes are closed and the outline stays where it is
_SPACING_NEIGHBOR = 4
_MAX_RADIUS = 0.1  # of a disc, so that a handful of points does not fill the picture


def draw_cloud(
    coord: Float32[np.ndarray, "n 3"],
    *,
    normal: Float32[np.ndarray, "n 3"],
    color: UInt8[np.ndarray, "n 3"],
    grid: SampleGrid,
) -> Iterator[Samples]:
    """Yield the samples of one view after another, lit as meshes are.

    Args:
        coord: Points in the object frame; repeated ones count once.
        normal: Unit length, of either sign.
        color: sRGB.
        grid: Cameras and samples.

    Note:
        A disc is no part of the surface: depth is that of the disc's point, up to a disc's radius away.
    """
    front = grid.rig.distance - 0.5  # where most visible points are
    radius = max(1.0, disc_radius(coord) * grid.intrinsics[0, 0] / front)
    for camera, pose in zip(grid.rig.cameras, grid.rig.poses, strict=True):
        toward = pose[:3, 3].astype(np.float32) - coord
        cosine = np.abs(np.einsum("nc,nc->n", normal, toward)) / np.linalg.norm(toward, axis=1)
        lit = np.rint(color * (AMBIENT + HEADLIGHT * cosine)[:, None]).astype(np.uint8)
        splat = fill_holes(splat_points(coord, color=lit, camera=camera, size=grid.side, radius=radius))
        yield Samples(
            rgb=splat.rgb, depth=grid.centers(np.where(np.isfinite(splat.depth), splat.depth, 0).astype(np.float32))
        )


def disc_radius(coord: Float32[np.ndarray, "n 3"]) -> float:
    """Return the radius of discs that close a surface: the usual distance from a point to its fourth neighbour.

    Around points that were drawn at random from a surface, less than 2 % of it stays uncovered (e to the power -4).
    """
    from scipy.spatial import cKDTree

    different = np.unique(coord, axis=0)
    nearest = min(_SPACING_NEIGHBOR, len(different) - 1)
    if nearest < 1:
        return _MAX_RADIUS
    distance, _ = cKDTree(different).query(different, k=[nearest + 1])  # the first neighbour is the point itself
    return min(float(np.median(distance)), _MAX_RADIUS)


def fill_holes(splat: Splat) -> Splat:
    """Give background pixels among covered ones the nearest of their eight neighbours."""
    height, width = splat.depth.shape
    depth = np.pad(splat.depth, 1, constant_values=np.inf)
    rgb = np.pad(splat.rgb, ((1, 1), (1, 1), (0, 0)), constant_values=255)
    shifts = [(dy, dx) for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
    around = np.stack([depth[dy : dy + height, dx : dx + width] for dy, dx in shifts])
    hole = ~np.isfinite(splat.depth) & (np.isfinite(around).sum(axis=0) >= _COVERED_NEIGHBORS)
    row, column = np.nonzero(hole)
    nearest = around[:, row, column].argmin(axis=0)
    step = np.array(shifts)[nearest]
    filled_depth, filled_rgb = splat.depth.copy(), splat.rgb.copy()
    filled_depth[row, column] = around[nearest, row, column]
    filled_rgb[row, column] = rgb[row + step[:, 0], column + step[:, 1]]
    return Splat(rgb=filled_rgb, depth=filled_depth)

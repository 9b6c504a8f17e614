"""What cameras see first, all around them: depth buffers on the six faces of a cube, filled by drawing triangles.

A triangle is tested with the planes through the camera and its edges, so nothing has to be clipped: it may reach behind
the camera. Both sides of a triangle are seen.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

AXES = np.array(
    [
        [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
        [[0, -1, 0], [0, 0, 1], [-1, 0, 0]],
        [[-1, 0, 0], [0, 0, 1], [0, 1, 0]],
        [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
        [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
        [[0, 1, 0], [1, 0, 0], [0, 0, -1]],
    ],
    dtype=np.float64,
)
"""Right, up and forward of the cube's faces; a ray of a face is forward + u right + v up with u and v from -1 to 1."""

NEAR = 1e-4  # metres; triangles with a corner closer than this to the camera's plane are looked for everywhere


@njit(cache=True, nogil=True)
def first_hits(
    corners: NDArray[np.float64],
    camera: NDArray[np.float64],
    rays: NDArray[np.float64],
    depth: NDArray[np.float64],
    triangle: NDArray[np.int32],
) -> None:  # pragma: no cover - compiled
    """Find what one camera's rays hit first.

    Args:
        corners: (f, 3, 3) triangles.
        camera: (3,) where the rays start.
        rays: (6, side, side, 2) u and v of every ray, which must lie in its pixel. Pixels are equally wide seen from
            the camera: u is the tangent of (-1 + 2 / side * [column, column + 1)) * 45 degrees, v of the row's.
        depth: (6, side, side) infinite; becomes the distance along the face's forward.
        triangle: (6, side, side) -1; becomes the index of the triangle.
    """
    side = rays.shape[1]
    seen = np.empty((3, 3))
    edge = np.empty((3, 3))
    bounds = np.empty(4, dtype=np.int64)
    for face in range(6):
        for f in range(corners.shape[0]):
            for k in range(3):
                for axis in range(3):
                    total = 0.0
                    for c in range(3):
                        total += (corners[f, k, c] - camera[c]) * AXES[face, axis, c]
                    seen[k, axis] = total
            if _outside(seen):
                continue
            _cross(seen[1], seen[2], edge[0])
            _cross(seen[2], seen[0], edge[1])
            _cross(seen[0], seen[1], edge[2])
            volume = seen[0, 0] * edge[0, 0] + seen[0, 1] * edge[0, 1] + seen[0, 2] * edge[0, 2]
            if volume == 0.0:
                continue
            _pixels(seen, side, bounds)
            for row in range(bounds[2], bounds[3]):
                for column in range(bounds[0], bounds[1]):
                    u, v = rays[face, row, column, 0], rays[face, row, column, 1]
                    a = (u * edge[0, 0] + v * edge[0, 1] + edge[0, 2]) / volume
                    b = (u * edge[1, 0] + v * edge[1, 1] + edge[1, 2]) / volume
                    c = (u * edge[2, 0] + v * edge[2, 1] + edge[2, 2]) / volume
                    inside = a >= 0.0 and b >= 0.0 and c >= 0.0 and a + b + c > 0.0
                    if inside and 1.0 / (a + b + c) < depth[face, row, column]:
                        depth[face, row, column] = 1.0 / (a + b + c)
                        triangle[face, row, column] = f


@njit(cache=True, nogil=True)
def _outside(seen: NDArray[np.float64]) -> bool:  # pragma: no cover - compiled
    """Tell whether a triangle (3, 3) in a face's frame lies behind the camera or beyond one side of the picture."""
    behind, right, left, above, below = 0, 0, 0, 0, 0
    for k in range(3):
        x, y, z = seen[k, 0], seen[k, 1], seen[k, 2]
        behind += z <= 0.0
        right += x > z
        left += x < -z
        above += y > z
        below += y < -z
    return behind == 3 or right == 3 or left == 3 or above == 3 or below == 3


@njit(cache=True, nogil=True)
def _cross(
    a: NDArray[np.float64], b: NDArray[np.float64], result: NDArray[np.float64]
) -> None:  # pragma: no cover - compiled
    result[0] = a[1] * b[2] - a[2] * b[1]
    result[1] = a[2] * b[0] - a[0] * b[2]
    result[2] = a[0] * b[1] - a[1] * b[0]


@njit(cache=True, nogil=True)
def _pixels(seen: NDArray[np.float64], side: int, bounds: NDArray[np.int64]) -> None:  # pragma: no cover - compiled
    """Fill the first and last (excluded) column and row that a triangle can reach."""
    bounds[0], bounds[1], bounds[2], bounds[3] = 0, side, 0, side
    if min(seen[0, 2], seen[1, 2], seen[2, 2]) < NEAR:
        return
    for axis in range(2):
        low, high = np.inf, -np.inf
        for k in range(3):
            at = (np.arctan2(seen[k, axis], seen[k, 2]) / (0.25 * np.pi) + 1.0) * 0.5 * side
            low, high = min(low, at), max(high, at)
        bounds[2 * axis] = max(0, int(np.floor(max(low, 0.0))))
        bounds[2 * axis + 1] = min(side, int(np.floor(min(high, side - 1.0))) + 1)

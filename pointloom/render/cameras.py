"""Where the cameras of a set of views stand, as matrices that others can use.

All cameras look at the origin of the object frame from the same distance, which is chosen so that the bounding sphere
of radius 1 always fits.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64

from pointloom.render.points import Camera

MARGIN = 1.05
"""Distance of the cameras over the smallest one from which the bounding sphere fits into the picture."""

LAYOUTS: dict[str, tuple[tuple[float, float], ...]] = {
    "openshape12": (
        *((azimuth, 30.0) for azimuth in (30.0, 120.0, 210.0, 300.0)),
        *((azimuth, 0.0) for azimuth in (60.0, 150.0, 240.0, 330.0)),
        *((azimuth, -30.0) for azimuth in (0.0, 90.0, 180.0, 270.0)),
    ),
    "ulip30": tuple((12.0 * i, math.degrees(math.atan(0.6))) for i in range(30)),
}
"""Name -> (azimuth, elevation) of every camera in degrees, azimuth about +Z from +X towards +Y.

``openshape12`` are the angles of OpenShape's rendering script (its polar angles 60, 90 and 120 degrees), ``ulip30`` the
30 azimuths of ULIP's renderings, whose camera stands at (0, 1, 0.6).

Note:
    Field of view and distance are our own: both originals let some objects touch the rim of the picture.
"""


@dataclass(frozen=True, kw_only=True)
class Rig:
    """The cameras of one layout.

    Attributes:
        layout: Name in ``LAYOUTS``.
        size: Width and height of a picture in pixels.
        fov_degrees: Angle of view, from side to side.
    """

    layout: str
    size: int
    fov_degrees: float

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"unknown layout {self.layout!r}; known: {', '.join(LAYOUTS)}")

    @property
    def distance(self) -> float:
        """Distance of every camera from the origin, in radii."""
        return MARGIN / math.sin(math.radians(self.fov_degrees) / 2)

    @cached_property
    def cameras(self) -> tuple[Camera, ...]:
        """One camera per view."""
        extent = self.distance * math.tan(math.radians(self.fov_degrees) / 2)
        return tuple(
            Camera(azimuth=azimuth, elevation=elevation, extent=extent, distance=self.distance)
            for azimuth, elevation in LAYOUTS[self.layout]
        )

    @property
    def intrinsics(self) -> Float64[np.ndarray, "3 3"]:
        """K: a point (x, y, z) of the camera's frame is seen at K (x, -y, -z) in pixels, y down."""
        focal = self.size / 2 / math.tan(math.radians(self.fov_degrees) / 2)
        return np.array([[focal, 0, self.size / 2], [0, focal, self.size / 2], [0, 0, 1]])

    @cached_property
    def poses(self) -> Float64[np.ndarray, "v 4 4"]:
        """Camera to object frame, one per view; a camera looks along its -Z and +Y is up in the picture.

        At the poles, where "up" is no direction in the picture, up is the limit of the cameras below it.
        """
        poses = np.tile(np.eye(4), (len(self.cameras), 1, 1))
        for pose, camera in zip(poses, self.cameras, strict=True):
            pose[:3, :3] = camera.axes().T
            pose[:3, 3] = pose[:3, 2] * self.distance
        return poses

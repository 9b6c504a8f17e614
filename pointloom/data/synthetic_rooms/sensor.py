"""A scanner's view of a room: points where rays from a few places end, with its noise and its colours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointloom.data.synthetic_rooms.plan import Plan
from pointloom.data.synthetic_rooms.surfaces import FLOOR, Surfaces
from pointloom.kernels.cube_maps import AXES, first_hits

RAYS_PER_POINT = 6
CANDIDATES = 24  # places that are looked at for each camera
CAMERA_SIZE = (0.5, 0.5, 0.5)  # metres that must be free around a camera
CAMERA_HEIGHT = (1.3, 1.9)
UPWARD = 0.25  # weight of rays that rise, because people scan rooms for what stands in them
AMBIENT = 0.7  # share of light that comes from everywhere
COLOR_NOISE = 6.0  # standard deviation of one channel, of 255
PLANK = (0.14, 1.2)  # metres, of a floor
PLANK_CONTRAST = 0.12


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """What was scanned.

    Attributes:
        coord: (N, 3) metres.
        color: (N, 3) RGB.
        normal: (N, 3) unit vectors towards the camera.
        owner: (N,) as in ``Surfaces``.
        cameras: (C, 3) from where.
    """

    coord: NDArray[np.float32]
    color: NDArray[np.uint8]
    normal: NDArray[np.float32]
    owner: NDArray[np.int32]
    cameras: NDArray[np.float64]


def scan(
    plan: Plan,
    surface: Surfaces,
    *,
    rng: np.random.Generator,
    num_points: int,
    num_cameras: int,
    falloff: float,
    noise: float,
) -> Scan:
    """Scan a room from a few places; only what a camera sees becomes points.

    Args:
        plan: The room, for free places.
        surface: Its triangles.
        rng: Decides about rays and noise.
        num_points: How many points come out, all different.
        num_cameras: From how many places, far from each other.
        falloff: The density of points on a surface falls with this power of the distance.
        noise: Standard deviation along the ray, per metre of distance; never more than three of them.
    """
    side = math.ceil(math.sqrt(RAYS_PER_POINT * num_points / (6 * num_cameras)))
    cameras = _places(plan, num_cameras)
    parts = [_hits(surface, camera, side, rng) for camera in cameras]
    ray = np.concatenate([part[0] for part in parts])
    face = np.concatenate([part[1] for part in parts])
    share = np.concatenate([part[2] for part in parts])
    origin = np.repeat(cameras, [len(part[1]) for part in parts], axis=0)
    distance = np.linalg.norm(ray, axis=1)
    aim = np.where(ray[:, 2] > 0, UPWARD, 1.0)
    chosen = _choose(share * aim * distance ** (2 - falloff), num_points, rng)
    ray, face, origin, distance = ray[chosen], face[chosen], origin[chosen], distance[chosen]

    corners = surface.corners[face]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    normal *= np.where(np.einsum("nc,nc->n", normal, ray) > 0, -1.0, 1.0)[:, None]
    coord = origin + ray
    color = _colors(surface, face, coord, normal, rng)
    coord += ray * (noise * _bell(rng, num_points))[:, None]
    return Scan(coord.astype(np.float32), color, normal.astype(np.float32), surface.owner[face], cameras)


def _places(plan: Plan, num: int) -> NDArray[np.float64]:
    """Return free places (num, 3), each the farthest of some candidates from those before it."""
    draw = plan.draw
    chosen: list[NDArray[np.float64]] = []
    for _ in range(num):
        height = draw.between(*CAMERA_HEIGHT)
        spots = [
            (plan.width * draw.between(-0.5, 0.5), plan.depth * draw.between(-0.5, 0.5)) for _ in range(CANDIDATES)
        ]
        free = [np.array([x, y, height]) for x, y in spots if plan.is_free((x, y, height), CAMERA_SIZE, 0.0)]
        places = free or [np.array([0.0, 0.0, plan.height - 0.1])]
        apart = [min((float(np.linalg.norm(place - other)) for other in chosen), default=0.0) for place in places]
        chosen.append(places[int(np.argmax(apart))])
    return np.stack(chosen)


def _hits(
    surface: Surfaces, camera: NDArray[np.float64], side: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]:
    """Return the rays (R, 3) of one camera up to where they end, the triangles there, and the solid angle of each."""
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1)
    rays = np.tan(((grid + rng.random((6, side, side, 2))) * (2 / side) - 1) * (np.pi / 4))
    depth = np.full((6, side, side), np.inf)
    triangle = np.full((6, side, side), -1, dtype=np.int32)
    first_hits(surface.corners, camera, rays, depth, triangle)
    cube, row, column = np.nonzero(triangle >= 0)
    at = rays[cube, row, column]
    direction = at[:, :1] * AXES[cube, 0] + at[:, 1:] * AXES[cube, 1] + AXES[cube, 2]
    solid_angle = (1 + at**2).prod(axis=1) * (1 + (at**2).sum(axis=1)) ** -1.5
    return direction * depth[cube, row, column, None], triangle[cube, row, column], solid_angle


def _choose(weight: NDArray[np.float64], num: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw ``num`` different places, heavier ones more often (exponential keys of Efraimidis and Spirakis)."""
    keys = -np.log1p(-rng.random(len(weight))) / weight
    return np.sort(np.argpartition(keys, num - 1)[:num])


def _bell(rng: np.random.Generator, *shape: int) -> NDArray[np.float64]:
    """Return numbers of mean 0 and standard deviation 1 that never exceed 3: sums of three uniform ones."""
    total: NDArray[np.float64] = 2 * rng.random((*shape, 3)).sum(axis=-1) - 3
    return total


def _colors(
    surface: Surfaces,
    face: NDArray[np.int32],
    coord: NDArray[np.float64],
    normal: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Return colours under one light and one white balance, with planks on the floor and noise everywhere."""
    toward = rng.random(3) * [2, 2, 1] - [1, 1, -0.5]
    toward /= np.linalg.norm(toward)
    light = AMBIENT + (1 - AMBIENT) * np.abs(normal @ toward)
    on_floor = surface.owner[face] == FLOOR
    plank, length = np.floor(coord[:, 0] / PLANK[0]), coord[:, 1] / PLANK[1]
    board = np.floor(length + 0.37 * plank) * 57 + plank * 131
    light = light + on_floor * PLANK_CONTRAST * (np.mod(np.sin(board) * 4375.85, 1.0) - 0.5)
    balance = (0.8 + 0.3 * rng.random()) * (0.94 + 0.12 * rng.random(3))
    shaded = surface.color[face] * light[:, None] * balance + COLOR_NOISE * _bell(rng, len(face), 3)
    return np.clip(shaded, 0, 255).astype(np.uint8)

"""Draw points with colours, normals and part labels from surfaces and clouds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointloom.data.clouds import Cloud
from pointloom.data.materials import NEUTRAL, linear_to_bytes, sample_texture
from pointloom.data.quarantine import RejectedError
from pointloom.data.surfaces import Surface

NORMAL_NEIGHBORS = 16


@dataclass(frozen=True)
class Sample:
    """Points in the coordinates of the source.

    Attributes:
        coord: (N, 3) float64.
        normal: (N, 3) float32, unit length.
        color: (N, 3) uint8 sRGB.
        segment: (N,) uint8 part ids, None without parts.
    """

    coord: NDArray[np.float64]
    normal: NDArray[np.float32]
    color: NDArray[np.uint8]
    segment: NDArray[np.uint8] | None = None


def sample_surface(surface: Surface, num_points: int, *, generator: np.random.Generator) -> Sample:
    """Draw points uniformly over the area of a surface.

    Raises:
        RejectedError: The surface has no area.
    """
    corners = surface.vertices[surface.faces]
    edge_a, edge_b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    cross = np.cross(edge_a, edge_b)
    doubled_area = np.linalg.norm(cross, axis=1)
    cumulative = np.cumsum(doubled_area)
    if not cumulative[-1] > 0:
        raise RejectedError("zero_extent", f"none of its {len(surface.faces)} faces has an area")
    face = np.searchsorted(cumulative, generator.random(num_points) * cumulative[-1], side="right")
    face = np.minimum(face, np.flatnonzero(doubled_area)[-1])
    weight = generator.random((num_points, 2))
    flipped = weight.sum(axis=1) > 1
    weight[flipped] = 1 - weight[flipped]
    coord = corners[face, 0] + weight[:, :1] * edge_a[face] + weight[:, 1:] * edge_b[face]
    barycentric = np.concatenate([1 - weight.sum(axis=1, keepdims=True), weight], axis=1)
    return Sample(
        coord=coord,
        normal=(cross[face] / doubled_area[face, None]).astype(np.float32),
        color=_surface_color(surface, face, barycentric),
        segment=None if surface.face_part is None else surface.face_part[face],
    )


def _surface_color(surface: Surface, face: NDArray[np.int64], barycentric: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Multiply texture, material, vertex and face colours in linear light."""
    material_index = surface.face_material[face]
    linear = np.stack([material.color for material in surface.materials])[material_index]
    if any(material.texture is not None for material in surface.materials):
        uv = np.einsum("nk,nkd->nd", barycentric, surface.uv[surface.faces[face]])
        for i in np.unique(material_index):
            texture = surface.materials[i].texture
            if texture is not None:
                at = material_index == i
                linear[at] *= sample_texture(texture, uv[at])
    if surface.vertex_color is not None:
        linear *= np.einsum("nk,nkd->nd", barycentric, surface.vertex_color[surface.faces[face]])
    if surface.face_color is not None:
        linear *= surface.face_color[face]
    return linear_to_bytes(linear)


def sample_cloud(cloud: Cloud, num_points: int, *, generator: np.random.Generator) -> Sample:
    """Choose points of a cloud at random; where there are too few, all of them and random repetitions.

    Missing normals are estimated from the neighbours in the full cloud, missing colours are a neutral grey.
    """
    size = len(cloud.coord)
    if size >= num_points:
        chosen = generator.choice(size, num_points, replace=False)
    else:
        chosen = np.concatenate([np.arange(size), generator.integers(0, size, num_points - size)])
    coord = cloud.coord[chosen]
    color = np.full((num_points, 3), NEUTRAL, dtype=np.uint8) if cloud.color is None else cloud.color[chosen]
    normal = estimate_normals(cloud.coord, coord) if cloud.normal is None else _unit(cloud.normal[chosen])
    return Sample(coord=coord, normal=normal, color=color)


def estimate_normals(cloud: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float32]:
    """Estimate normals as the direction of least variance of the nearest points, turned away from the centroid.

    Args:
        cloud: (P, 3) points.
        at: (N, 3) where normals are wanted.

    Returns:
        (N, 3) unit vectors; clouds of fewer than three points get +z.
    """
    from scipy.spatial import cKDTree

    if len(cloud) < 3:
        return np.tile(np.array([0, 0, 1], dtype=np.float32), (len(at), 1))
    _, neighbors = cKDTree(cloud).query(at, k=min(NORMAL_NEIGHBORS, len(cloud)))
    local = cloud[neighbors]
    local = local - local.mean(axis=1, keepdims=True)
    _, vectors = np.linalg.eigh(np.einsum("nki,nkj->nij", local, local))
    normal = vectors[:, :, 0]
    inward = np.einsum("ni,ni->n", normal, at - cloud.mean(axis=0)) < 0
    return np.where(inward[:, None], -normal, normal).astype(np.float32)


def _unit(normal: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    up = np.array([0, 0, 1], dtype=np.float32)
    return np.where(length > 1e-12, normal / np.maximum(length, 1e-12), up).astype(np.float32)

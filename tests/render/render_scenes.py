"""Small surfaces whose pictures are known, and renderers that are skipped where they do not work."""

from functools import cache

import numpy as np
import pytest
import trimesh

from pointloom.data.materials import WHITE_MATERIAL, Material, bytes_to_linear
from pointloom.data.surfaces import Surface
from pointloom.errors import BackendError
from pointloom.render.backend import RENDERERS, Renderer
from pointloom.render.cameras import Rig
from pointloom.render.mesh import Mesh, mesh_of
from pointloom.render.samples import SampleGrid, shrink

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 220, 30), (30, 30, 220), (220, 220, 30)


def grid(*, size: int = 64, supersample: int = 2, layout: str = "openshape12", fov: float = 40.0) -> SampleGrid:
    return SampleGrid(Rig(layout=layout, size=size, fov_degrees=fov), supersample)


@cache
def open_renderer(name: str, samples: SampleGrid) -> Renderer:
    """One renderer per process and grid, as in production."""
    try:
        return RENDERERS[name](samples)
    except BackendError as error:
        pytest.skip(str(error))


def draw(name: str, mesh: Mesh, samples: SampleGrid) -> tuple[np.ndarray, np.ndarray]:
    """Return (V, H, W, 3) colours and (V, H, W) depths."""
    drawn = list(open_renderer(name, samples).draw(mesh))
    return np.stack([shrink(s.rgb, samples.supersample) for s in drawn]), np.stack([s.depth for s in drawn])


def surface(
    vertices: np.ndarray,
    faces: np.ndarray,
    *,
    face_color: np.ndarray | None = None,
    vertex_color: np.ndarray | None = None,
    uv: np.ndarray | None = None,
    material: Material = WHITE_MATERIAL,
) -> Surface:
    return Surface(
        vertices=np.asarray(vertices, dtype=np.float64),
        faces=np.asarray(faces, dtype=np.int64),
        face_material=np.zeros(len(faces), dtype=np.int64),
        materials=(material,),
        uv=np.zeros((len(vertices), 2)) if uv is None else uv,
        face_color=None if face_color is None else bytes_to_linear(face_color),
        vertex_color=vertex_color,
    )


def mesh(value: Surface) -> Mesh:
    return mesh_of(value, np.eye(4))


def boxes(*parts: tuple[tuple[float, float, float], tuple[float, float, float], tuple[int, int, int]]) -> Surface:
    """Boxes of (centre, edge lengths, colour)."""
    made = [
        trimesh.creation.box(extents=size, transform=trimesh.transformations.translation_matrix(center))
        for center, size, _ in parts
    ]
    offsets = np.cumsum([0] + [len(m.vertices) for m in made[:-1]])
    colors = np.concatenate(
        [np.tile(np.array(color, np.uint8), (len(m.faces), 1)) for m, (_, _, color) in zip(made, parts, strict=True)]
    )
    return surface(
        np.concatenate([m.vertices for m in made]),
        np.concatenate([m.faces + offset for m, offset in zip(made, offsets, strict=True)]),
        face_color=colors,
    )


def letter_f() -> Surface:
    """An F in the plane y = 0 that reads from -Y: red stem on the left, green arm on top, short blue arm below it."""
    return boxes(
        ((-0.35, 0, 0), (0.15, 0.1, 1.4), RED),
        ((0.1, 0, 0.6), (0.75, 0.1, 0.2), GREEN),
        ((-0.05, 0, 0.1), (0.45, 0.1, 0.2), BLUE),
    )


def ball(*, textured: bool = False) -> Surface:
    """A sphere of radius 0.9 with colours that differ all over."""
    made = trimesh.creation.uv_sphere(radius=0.9, count=(24, 24))
    if not textured:
        return surface(made.vertices, made.faces, vertex_color=(0.5 + made.vertices / 2).astype(np.float32))
    row, column = np.mgrid[0:128, 0:128] / 127
    texture = np.stack([255 * row, 255 * column, 128 + 100 * np.sin(6 * row)], axis=2).astype(np.uint8)
    uv = 0.5 + made.vertices[:, [0, 2]] / 2
    return surface(made.vertices, made.faces, uv=uv, material=Material(np.ones(3, np.float32), texture))


def facing(direction: np.ndarray, *, half: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a square around the origin that faces a direction; +Z stays up in it."""
    toward = direction / np.linalg.norm(direction)
    right = np.cross([0, 0, 1], toward)
    right /= np.linalg.norm(right)
    up = np.cross(toward, right)
    corners = np.array([-right - up, right - up, right + up, -right + up]) * half
    return corners, np.array([[0, 1, 2], [0, 2, 3]])

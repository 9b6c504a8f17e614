"""What the mesh renderers draw: the triangles of a surface in the object frame, with everything that colours them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from pointloom.data.surfaces import Surface

AMBIENT = 0.4
HEADLIGHT = 0.6
"""Brightness of a face is AMBIENT + HEADLIGHT |cosine between its normal and the direction to the camera|: every face
is lit from both sides, because many meshes have flipped ones."""
MAX_TEXTURE = 1024


@dataclass(frozen=True)
class Batch:
    """Neighbouring faces with the same texture.

    Attributes:
        texture: (H, W, 3) sRGB, first row on top; None for faces without one.
        start: First face.
        stop: Face after the last one.
    """

    texture: UInt8[np.ndarray, "h w 3"] | None
    start: int
    stop: int


@dataclass(frozen=True)
class Mesh:
    """Triangles with their own corners.

    Attributes:
        corners: (F, 3, 3) in the object frame.
        normal: (F, 3) unit length, zero for a face without an area.
        color: (F, 3, 3) linear multipliers per corner.
        uv: (F, 3, 2) texture coordinates, origin at the lower left, within a few repeats of the texture.
        batches: Faces by texture, in order and without gaps.
    """

    corners: Float32[np.ndarray, "f 3 3"]
    normal: Float32[np.ndarray, "f 3"]
    color: Float32[np.ndarray, "f 3 3"]
    uv: Float32[np.ndarray, "f 3 2"]
    batches: tuple[Batch, ...]


def mesh_of(surface: Surface, transform: NDArray[np.float64]) -> Mesh:
    """Turn a surface into triangles that are sorted by texture.

    Args:
        surface: In the coordinates of its file.
        transform: (4, 4) from there to the object frame.

    Note:
        Normals are those of the faces, not the smoothed ones that a file may have: all formats give them, none is
        wrong, and a curved surface of many faces looks the same.
    """
    textures, texture_of = _unique_textures([material.texture for material in surface.materials])
    face_texture = texture_of[surface.face_material]
    order = np.argsort(face_texture, kind="stable")
    faces, material = surface.faces[order], surface.face_material[order]
    corners = (surface.vertices @ transform[:3, :3].T + transform[:3, 3])[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(cross, axis=1, keepdims=True)
    color = np.repeat(np.stack([m.color for m in surface.materials])[material][:, None], 3, axis=1)
    if surface.vertex_color is not None:
        color = color * surface.vertex_color[faces]
    if surface.face_color is not None:
        color = color * surface.face_color[order][:, None]
    uv = np.nan_to_num(surface.uv, nan=0.0, posinf=0.0, neginf=0.0)[faces]
    ends = np.searchsorted(face_texture[order], np.arange(len(textures)), side="right")
    starts = np.concatenate([[0], ends[:-1]])
    batches = [Batch(t, int(a), int(b)) for t, a, b in zip(textures, starts, ends, strict=True) if b > a]
    return Mesh(
        corners=corners.astype(np.float32),
        normal=np.divide(cross, length, out=np.zeros_like(cross), where=length > 0).astype(np.float32),
        color=color.astype(np.float32),
        uv=(uv - np.floor(uv.min(axis=1, keepdims=True))).astype(np.float32),
        batches=tuple(batches),
    )


def _unique_textures(
    textures: list[NDArray[np.uint8] | None],
) -> tuple[list[NDArray[np.uint8] | None], NDArray[np.int64]]:
    """Return the different textures and which one each material has; parts of a model often share one image."""
    unique: list[NDArray[np.uint8] | None] = []
    seen: dict[Any, int] = {}
    index = []
    for texture in textures:
        small = None if texture is None else _limited(texture)
        key = None if small is None else (small.shape, small.tobytes())
        if key not in seen:
            seen[key] = len(unique)
            unique.append(small)
        index.append(seen[key])
    return unique, np.array(index, dtype=np.int64)


def _limited(texture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale a texture down to at most ``MAX_TEXTURE`` pixels a side."""
    from PIL import Image

    largest = max(texture.shape[:2])
    if largest <= MAX_TEXTURE:
        return texture
    height, width = (max(1, side * MAX_TEXTURE // largest) for side in texture.shape[:2])
    return np.asarray(Image.fromarray(texture).resize((width, height), Image.Resampling.BOX))

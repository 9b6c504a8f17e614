"""Surface colour: every source of it becomes a linear-light multiplier, and the product is stored as sRGB.

A point's colour is texture x material colour x vertex colour x face colour, multiplied in linear light and encoded as
sRGB at the end. Textures, OBJ and DAE colours and the colours of PLY, OFF and STL files are sRGB; glTF factors and
glTF vertex colours are linear by definition of that format. A single source therefore comes back exactly.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEUTRAL = 160
"""Grey level of surfaces and points without any colour."""


@dataclass(frozen=True)
class Material:
    """Colour of a set of faces.

    Attributes:
        color: (3,) linear, 0 to 1.
        texture: (H, W, 3) uint8 sRGB, first row on top; None for a plain material.
        damaged: There is a texture, but it cannot be decoded.
    """

    color: NDArray[np.float32]
    texture: NDArray[np.uint8] | None = None
    damaged: bool = False


def srgb_to_linear(value: NDArray[Any]) -> NDArray[np.float32]:
    """Decode sRGB values of 0 to 1 (IEC 61966-2-1)."""
    value = np.asarray(value, dtype=np.float32)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR = srgb_to_linear(np.arange(256) / 255)


def bytes_to_linear(color: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Decode sRGB bytes."""
    return _LINEAR[color]


def linear_to_bytes(value: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Encode linear values of 0 to 1 as sRGB bytes; values outside are clipped."""
    value = np.clip(value, 0, 1)
    encoded = np.where(value <= 0.0031308, value * 12.92, 1.055 * np.maximum(value, 1e-9) ** (1 / 2.4) - 0.055)
    levels: NDArray[np.uint8] = np.rint(encoded * 255).astype(np.uint8)
    return levels


NEUTRAL_MATERIAL = Material(color=bytes_to_linear(np.full(3, NEUTRAL, dtype=np.uint8)))
WHITE_MATERIAL = Material(color=np.ones(3, dtype=np.float32))


def sample_texture(texture: NDArray[np.uint8], uv: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Look up the nearest texel; coordinates outside of 0 to 1 repeat the image.

    Args:
        texture: (H, W, 3), first row on top.
        uv: (P, 2) with the origin at the lower left corner.

    Returns:
        (P, 3) linear colours.
    """
    height, width = texture.shape[:2]
    uv = np.nan_to_num(uv, nan=0.0, posinf=0.0, neginf=0.0)
    column = np.minimum(((uv[:, 0] % 1.0) * width).astype(np.int64), width - 1)
    row = np.minimum((((1.0 - uv[:, 1]) % 1.0) * height).astype(np.int64), height - 1)
    return bytes_to_linear(texture[row, column])


def material_of(visual: Any, *, linear_factors: bool) -> Material:
    """Read the material of one mesh from what trimesh made of it.

    Args:
        visual: ``TextureVisuals`` of trimesh.
        linear_factors: The plain colours of the format are linear (glTF), not sRGB.
    """
    from PIL import Image
    from trimesh.visual.material import PBRMaterial

    material = visual.material
    if isinstance(material, PBRMaterial):
        image, factor = material.baseColorTexture, material.baseColorFactor
        if image is None and factor is None:
            return WHITE_MATERIAL if linear_factors else NEUTRAL_MATERIAL
    else:
        # an image without a format is trimesh's grey placeholder for "no image"; Kd is ignored beside an image,
        # as most viewers do, because exporters often leave a meaningless grey there
        image = getattr(material, "image", None)
        image = image if image is not None and image.format is not None else None
        factor = None if image is not None else _declared_diffuse(material)
        if image is None and factor is None:
            return NEUTRAL_MATERIAL
    color: NDArray[np.float32] = np.ones(3, dtype=np.float32)
    if factor is not None:
        rgb = np.asarray(factor)[:3].astype(np.float32) / np.float32(255)
        color = rgb if linear_factors else srgb_to_linear(rgb)
    if image is None:
        return Material(color=color)
    try:
        return Material(color=color, texture=np.asarray(image.convert("RGB"), dtype=np.uint8))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return Material(color=color, damaged=True)


def _declared_diffuse(material: Any) -> NDArray[Any] | None:
    declared = "kd" in getattr(material, "kwargs", {})
    return np.asarray(material.diffuse) if declared else None


def corner_colors(visual: Any, *, num_vertices: int, num_faces: int, linear: bool) -> tuple[str, NDArray[np.float32]]:
    """Read vertex or face colours of one mesh from trimesh.

    Args:
        visual: ``ColorVisuals`` or ``TextureVisuals`` of trimesh.
        num_vertices: V of the mesh.
        num_faces: F of the mesh.
        linear: The format stores linear colours (glTF), not sRGB.

    Returns:
        ``vertex`` and (V, 3), ``face`` and (F, 3), or ``none`` and (0, 3); linear colours.
    """
    kind, raw = getattr(visual, "kind", None), None
    if kind == "texture":
        raw, kind = visual.vertex_attributes.get("color"), "vertex"
    elif kind == "vertex":
        raw = visual.vertex_colors
    elif kind == "face":
        raw = visual.face_colors
    if raw is None or len(raw) != (num_faces if kind == "face" else num_vertices):
        return "none", np.empty((0, 3), dtype=np.float32)
    raw = np.asarray(raw)[:, :3]
    scale = float(np.iinfo(raw.dtype).max) if raw.dtype.kind in "ui" else 1.0
    value = (raw / scale).astype(np.float32)
    return str(kind), value if linear else srgb_to_linear(value)

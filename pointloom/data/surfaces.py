"""Load a mesh file into one simple surface with its colours, scene transforms applied."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pointloom.data.clouds import Cloud, check_size
from pointloom.data.materials import (
    NEUTRAL_MATERIAL,
    WHITE_MATERIAL,
    Material,
    corner_colors,
    material_of,
)
from pointloom.data.quarantine import RejectedError

if TYPE_CHECKING:
    from pointloom.data.side_files import SideFiles

_GLTF = (".gltf", ".glb")


@dataclass(frozen=True)
class Surface:
    """A triangle mesh in the coordinates of its file.

    Attributes:
        vertices: (V, 3) float64.
        faces: (F, 3) int64.
        face_material: (F,) index into ``materials``.
        materials: Colours of the faces.
        uv: (V, 2) texture coordinates, zeros where there are none.
        vertex_color: (V, 3) linear multipliers; None where all are one.
        face_color: (F, 3) linear multipliers; None where all are one.
        face_part: (F,) uint8 part per face; None for meshes without parts.
        warnings: Words such as ``texture_missing``.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    face_material: NDArray[np.int64]
    materials: tuple[Material, ...]
    uv: NDArray[np.float64]
    vertex_color: NDArray[np.float32] | None = None
    face_color: NDArray[np.float32] | None = None
    face_part: NDArray[np.uint8] | None = None
    warnings: tuple[str, ...] = ()


def load_surface(path: Path, *, root: Path | None = None) -> Surface | Cloud:
    """Load OFF, OBJ, PLY, STL, GLB, glTF or DAE; a file with points but no faces is a cloud.

    Args:
        path: The file; materials, textures and buffers are looked for beside it.
        root: Referenced files are read only from inside this folder; the file's own folder if None.

    Raises:
        RejectedError: The file is damaged, empty, not finite, or has no extent.
    """
    import trimesh

    from pointloom.data.side_files import SideFiles

    suffix = path.suffix.lower()
    data = path.read_bytes()
    if suffix in _GLTF:
        check_gltf(data, binary=suffix == ".glb")
    if suffix == ".stl":
        _check_stl(data)
    if suffix in (".off", ".ply"):
        _check_lines(data, suffix)
    if suffix in (".off", ".obj") and b"\0" in data[:1024]:
        raise RejectedError("unreadable", f"a {suffix} file is text, this one is not")
    side_files = SideFiles(path, root=root or path.parent)
    try:
        with path.open("rb") as file:
            scene = trimesh.load_scene(file, file_type=suffix[1:], resolver=side_files, process=False)
        surface = _flatten(scene, linear=suffix in _GLTF, side_files=side_files)
    except (MemoryError, RejectedError):
        raise
    except Exception as error:
        if side_files.missing:
            names = ", ".join(side_files.missing)
            raise RejectedError(
                "missing_file", f"it refers to {names}, which is not there; copy it beside the mesh"
            ) from error
        raise RejectedError("unreadable", f"trimesh cannot read it: {type(error).__name__}: {error}") from error
    if suffix == ".obj" and isinstance(surface, Cloud) and b"\nvt " in data:
        raise RejectedError("unreadable", "it has texture coordinates but no faces: is it cut off? Copy it again")
    _check(surface, draco=suffix in _GLTF and b"KHR_draco_mesh_compression" in data)
    return surface


def check_gltf(data: bytes, *, binary: bool) -> None:
    """Check the frame of a glTF file, because the errors of the loader are misleading there.

    Raises:
        RejectedError: The header or the JSON part is damaged, or a buffer is cut off.
    """
    text = data
    if binary:
        if data[:4] != b"glTF":
            raise RejectedError("unreadable", f"a .glb file begins with 'glTF', this one with {data[:4]!r}")
        if len(data) < int.from_bytes(data[8:12], "little"):
            declared = int.from_bytes(data[8:12], "little")
            raise RejectedError("unreadable", f"the file is cut off: {len(data)} bytes of {declared}; copy it again")
        text = data[20 : 20 + int.from_bytes(data[12:16], "little")]
    try:
        json.loads(text)
    except (UnicodeDecodeError, ValueError) as error:
        raise RejectedError("unreadable", f"its JSON part is invalid: {error}") from error


def _check_stl(data: bytes) -> None:
    """Check the length of a binary STL file; trimesh would take a cut one for an empty text file."""
    declared = 84 + 50 * int.from_bytes(data[80:84], "little")
    if not data.lstrip().startswith(b"solid") and len(data) < declared:
        raise RejectedError("unreadable", f"the file is cut off: {len(data)} bytes of {declared}; copy it again")


def _check_lines(data: bytes, suffix: str) -> None:
    """Check that an OFF or text PLY file has a line per vertex and face; trimesh would take what is there of a cut one.

    Raises:
        RejectedError: It has fewer.
    """
    if suffix == ".off":
        header = re.match(rb"(?:\s|#.*\n)*C?OFF(?:\s|#.*\n)*(\d+)\s+(\d+)", data)
        counts = header.groups() if header else ()
        body = re.sub(rb"#[^\r\n]*", b"", data[header.end() :]) if header else b""
        lines = body.splitlines()[1:]
    else:
        head, _, body = data.partition(b"end_header")
        counts = tuple(re.findall(rb"^element\s+\S+\s+(\d+)", head, re.MULTILINE)) if b"format ascii" in head else ()
        lines = body.splitlines()[1:]
    declared, found = sum(map(int, counts)), sum(1 for line in lines if line.strip())
    if found < declared:
        raise RejectedError("unreadable", f"the file is cut off: {found} lines of {declared}; copy it again")


def _flatten(scene: Any, *, linear: bool, side_files: "SideFiles") -> Surface | Cloud:
    """Put all meshes of a scene into one, transforms applied; without meshes, all clouds into one."""
    warnings = ("texture_missing",) if side_files.missing else ()
    pieces = []
    clouds = []
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        geometry = scene.geometry[name]
        if len(getattr(geometry, "faces", ())) > 0:
            pieces.append(_piece(geometry, np.asarray(transform), linear=linear))
        elif type(geometry).__name__ == "PointCloud" and len(geometry.vertices) > 0:
            clouds.append(_cloud(geometry, np.asarray(transform)))
    if pieces:
        damaged = any(piece.material.damaged for piece in pieces)
        return _join(pieces, (*warnings, "texture_damaged") if damaged else warnings)
    if clouds:
        return _join_clouds(clouds, warnings)
    raise RejectedError("empty", "the file has neither faces nor points")


@dataclass(frozen=True)
class _Piece:
    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    uv: NDArray[np.float64] | None
    material: Material
    kind: str
    color: NDArray[np.float32]


def _piece(geometry: Any, transform: NDArray[np.float64], *, linear: bool) -> _Piece:
    vertices = np.asarray(geometry.vertices, dtype=np.float64)
    faces = np.asarray(geometry.faces, dtype=np.int64)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise RejectedError("unreadable", f"expected x y z and triangles, got {vertices.shape} and {faces.shape}")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise RejectedError("unreadable", f"faces refer to vertex {faces.max()}, the mesh has {len(vertices)}")
    vertices = vertices @ transform[:3, :3].T + transform[:3, 3]
    if np.linalg.det(transform[:3, :3]) < 0:
        faces = faces[:, ::-1]
    visual = geometry.visual
    kind, color = corner_colors(visual, num_vertices=len(vertices), num_faces=len(faces), linear=linear)
    if getattr(visual, "kind", None) == "texture":
        material = material_of(visual, linear_factors=linear)
        uv = visual.uv
    else:
        material = NEUTRAL_MATERIAL if kind == "none" else WHITE_MATERIAL
        uv = None
    uv = None if uv is None or len(uv) != len(vertices) else np.asarray(uv, dtype=np.float64)[:, :2]
    return _Piece(vertices, faces, uv, material, kind, color)


def _join(pieces: list[_Piece], warnings: tuple[str, ...]) -> Surface:
    offsets = np.cumsum([0] + [len(p.vertices) for p in pieces[:-1]])
    uv = [np.zeros((len(p.vertices), 2)) if p.uv is None else p.uv for p in pieces]
    return Surface(
        vertices=np.concatenate([p.vertices for p in pieces]),
        faces=np.concatenate([p.faces + offset for p, offset in zip(pieces, offsets, strict=True)]),
        face_material=np.repeat(np.arange(len(pieces)), [len(p.faces) for p in pieces]),
        materials=tuple(p.material for p in pieces),
        uv=np.concatenate(uv),
        vertex_color=_multipliers(pieces, "vertex"),
        face_color=_multipliers(pieces, "face"),
        warnings=warnings,
    )


def _multipliers(pieces: list[_Piece], kind: str) -> NDArray[np.float32] | None:
    if all(p.kind != kind for p in pieces):
        return None
    lengths = [len(p.vertices if kind == "vertex" else p.faces) for p in pieces]
    parts = [p.color if p.kind == kind else np.ones((n, 3), np.float32) for p, n in zip(pieces, lengths, strict=True)]
    return np.concatenate(parts)


def _cloud(geometry: Any, transform: NDArray[np.float64]) -> Cloud:
    coord = np.asarray(geometry.vertices, dtype=np.float64) @ transform[:3, :3].T + transform[:3, 3]
    raw = geometry.colors
    color = None if raw is None or len(raw) != len(coord) else np.asarray(raw, dtype=np.uint8)[:, :3]
    return Cloud(coord=coord, color=color, normal=_ply_normals(geometry, transform))


def _ply_normals(geometry: Any, transform: NDArray[np.float64]) -> NDArray[np.float32] | None:
    """Return the normals of a PLY cloud, which trimesh keeps among the raw columns only."""
    columns = geometry.metadata.get("_ply_raw", {}).get("vertex", {}).get("data")
    try:
        normal = np.stack(
            [np.asarray(columns[name], dtype=np.float32).reshape(-1) for name in ("nx", "ny", "nz")], axis=1
        )
    except (KeyError, ValueError, TypeError):
        return None
    turned = normal @ transform[:3, :3].T.astype(np.float32)
    return turned if turned.shape == (len(geometry.vertices), 3) else None


def _join_clouds(clouds: list[Cloud], warnings: tuple[str, ...]) -> Cloud:
    if len(clouds) == 1:
        return Cloud(clouds[0].coord, clouds[0].color, clouds[0].normal, warnings)
    colors = [cloud.color for cloud in clouds if cloud.color is not None]
    color = np.concatenate(colors) if len(colors) == len(clouds) else None
    return Cloud(np.concatenate([cloud.coord for cloud in clouds]), color, None, warnings)


def _check(surface: Surface | Cloud, *, draco: bool) -> None:
    if isinstance(surface, Cloud):
        surface.check()
        return
    used = surface.vertices[np.unique(surface.faces)]
    if not np.isfinite(used).all():
        bad = int((~np.isfinite(used).all(axis=1)).sum())
        raise RejectedError("not_finite", f"{bad} of {len(used)} vertices are NaN or infinite")
    check_size(used)
    if np.ptp(used, axis=0).max() <= 1e-12 * max(1.0, float(np.abs(used).max())):
        hint = "; Draco data was not decoded: pip install dracopy" if draco else ""
        raise RejectedError("zero_extent", f"all {len(used)} vertices are in one place{hint}")

"""From one input to one prepared object: load, sample, move into the object frame, order."""

import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pointloom.data.clouds import CLOUD_SUFFIXES, Cloud, load_cloud
from pointloom.data.folder import UP_AXES
from pointloom.data.materials import WHITE_MATERIAL, bytes_to_linear
from pointloom.data.quarantine import RejectedError
from pointloom.data.records import ObjectPoints, ObjectRecord
from pointloom.data.sampling import sample_cloud, sample_surface
from pointloom.data.sources import SourceObject
from pointloom.data.surfaces import Surface, load_surface

if TYPE_CHECKING:
    from pointloom.data.synthetic import SyntheticObject

VERSION = 1
"""Raised whenever the same input and parameters give other points."""

TO_Z_UP = {
    "z": np.eye(3),
    "y": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "x": np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]),
}
"""Proper rotations from an up axis to +Z."""


@dataclass(frozen=True)
class Intake:
    """How inputs become objects.

    Attributes:
        folder: Source folder.
        num_points: Points per object.
        seed: Of the sampling; every object has its own stream.
        up: ``auto`` or one axis for all files.
        max_file_mb: Larger files are refused.
    """

    folder: Path
    num_points: int
    seed: int
    up: str
    max_file_mb: float

    def key(self, source: SourceObject) -> str:
        """Return what the prepared points depend on, as a hash."""
        parts = [VERSION, self.num_points, self.seed, self.up, source.path, source.version, source.synthetic_index]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]

    def __call__(self, source: SourceObject) -> tuple[ObjectRecord, ObjectPoints]:
        """Prepare one object.

        Raises:
            RejectedError: The input cannot be used.
        """
        if source.synthetic_index is not None:
            return self._generate(source)
        path = self.folder / source.path
        size = path.stat().st_size
        if size > self.max_file_mb * 1e6:
            raise RejectedError("too_large", f"{size / 1e6:.0f} MB, the limit max_file_mb is {self.max_file_mb:g}")
        if size == 0:
            raise RejectedError("empty", "the file has 0 bytes")
        cloud = path.suffix.lower() in CLOUD_SUFFIXES
        shape = load_cloud(path) if cloud else load_surface(path, root=self.folder)
        up = up_axis(path, self.up)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._finish(source, shape, up=up, sha256=digest)

    def _generate(self, source: SourceObject) -> tuple[ObjectRecord, ObjectPoints]:
        from pointloom.data.synthetic import generate_object

        made = generate_object(source.synthetic_index or 0, seed=self.seed, category=source.name)
        surface = generated_surface(made)
        words: dict[str, Any] = {"name": made.name, "attributes": made.attributes, "captions": made.captions}
        return self._finish(source, surface, up="z", sha256=generated_digest(made), **words)

    def _finish(
        self, source: SourceObject, shape: Surface | Cloud, *, up: str, sha256: str, **words: Any
    ) -> tuple[ObjectRecord, ObjectPoints]:
        from pointloom.kernels import fps_order

        generator = _generator(self.seed, source.uid)
        if isinstance(shape, Cloud):
            extent, num_faces = shape.coord, 0
            sample = sample_cloud(shape, self.num_points, generator=generator)
        else:
            extent, num_faces = shape.vertices[np.unique(shape.faces)], len(shape.faces)
            sample = sample_surface(shape, self.num_points, generator=generator)
        transform = object_frame(extent, up)
        coord = (sample.coord @ transform[:3, :3].T + transform[:3, 3]).astype(np.float32)
        order = fps_order(coord)
        normal = (sample.normal @ TO_Z_UP[up].T.astype(np.float32))[order]
        warnings = list(shape.warnings)
        if isinstance(shape, Cloud) and len(shape.coord) < self.num_points:
            warnings.append("points_repeated")
        record = ObjectRecord(
            uid=source.uid,
            path=source.path,
            name=words.pop("name", source.name),
            category=source.category,
            group=source.group,
            split=source.split,
            up_axis=up,
            transform=tuple(transform.ravel().tolist()),
            sha256=sha256,
            num_faces=num_faces,
            status=",".join(warnings) or "ok",
            **words,
        )
        segment = None if sample.segment is None else sample.segment[order]
        return record, ObjectPoints(coord[order], normal, sample.color[order], segment)


def generated_surface(made: "SyntheticObject") -> Surface:
    """Return a generated object as a surface; its coordinates are those of the generator, +Z up."""
    return Surface(
        vertices=made.vertices.astype(np.float64),
        faces=made.faces.astype(np.int64),
        face_material=np.zeros(len(made.faces), dtype=np.int64),
        materials=(WHITE_MATERIAL,),
        uv=np.zeros((len(made.vertices), 2)),
        face_color=bytes_to_linear(made.face_color),
        face_part=made.face_part,
    )


def generated_digest(made: "SyntheticObject") -> str:
    """Return what stands for the hash of the source file of a generated object."""
    return hashlib.sha256(made.vertices.tobytes() + made.faces.tobytes() + made.face_color.tobytes()).hexdigest()


def up_axis(path: Path, up: str) -> str:
    """Return the up axis of a file: the one asked for, the one a DAE declares, or the usual one of the format."""
    suffix = path.suffix.lower()
    if up != "auto":
        return up
    if suffix == ".dae":
        declared = re.search(rb"<up_axis>\s*([XYZ])_UP", path.read_bytes())
        if declared:
            return declared[1].decode().lower()
    return UP_AXES.get(suffix, "z")


def object_frame(coord: NDArray[np.float64], up: str) -> NDArray[np.float64]:
    """Return the 4 x 4 transform that puts +Z up, the bounding-box centre at 0 and the farthest point at distance 1."""
    rotated = coord @ TO_Z_UP[up].T
    center = (rotated.min(axis=0) + rotated.max(axis=0)) / 2
    scale = 1 / np.linalg.norm(rotated - center, axis=1).max()
    transform = np.eye(4)
    transform[:3, :3] = TO_Z_UP[up] * scale
    transform[:3, 3] = -center * scale
    return transform


def warm_up() -> None:
    """Import and compile what every object needs, before its time is counted."""
    import trimesh

    from pointloom.kernels import fps_order

    logging.getLogger("trimesh").setLevel(logging.CRITICAL)  # what matters ends up in the quarantine
    trimesh.creation.box()
    fps_order(np.eye(3, dtype=np.float32))


def _generator(seed: int, uid: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{uid}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))

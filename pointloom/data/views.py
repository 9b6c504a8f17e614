"""Rendered views on disk; nothing else in the package knows their layout.

``views.json`` says how the views were made, ``index.parquet`` has one row per object, ``views/00000.h5`` and so on hold
the encoded pictures of at most 4,096 objects each, and ``failures.jsonl`` lists the objects without a usable view.
Colour is JPEG on white, depth is 16-bit PNG in units of 1/8192 radius with 0 for the background. A view that shows
nothing is kept as it was rendered and marked as not valid: no picture is ever invented. Pictures carry checksums,
because a JPEG with a wrong byte is often still a picture.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from numpy.typing import NDArray

from pointloom.data.records import Failure
from pointloom.data.shards import write_failures
from pointloom.errors import DataError

if TYPE_CHECKING:
    import h5py

FORMAT = 1
SHARD_SIZE = 4096
DEPTH_UNIT = 1 / 8192
JPEG_QUALITY = 95
_KINDS = ("rgb", "depth")
_DESCRIPTION = "views.json"


@dataclass(frozen=True)
class ObjectViews:
    """All views of one object, encoded.

    Attributes:
        uid: Of the object in the prepared store.
        rgb: One JPEG per view.
        depth: One 16-bit PNG per view.
        valid: Which views show the object.
        coverage: Part of the picture that the object fills, per view.
    """

    uid: str
    rgb: tuple[bytes, ...]
    depth: tuple[bytes, ...]
    valid: tuple[bool, ...]
    coverage: tuple[float, ...]


@dataclass(frozen=True)
class ViewsInfo:
    """What ``views.json`` says.

    Attributes:
        layout: Name of the arrangement of the cameras.
        size: Width and height of the pictures in pixels.
        intrinsics: (3, 3) K of all cameras: a point (x, y, z) of the camera's frame is seen at K (x, -y, -z) in pixels,
            x to the right and y down, the centre of the first pixel at 0.5.
        poses: (V, 4, 4) camera to object frame; the camera looks along its -Z, +Y is up in the picture.
        renderer: ``egl`` or ``raycast``.
        device: What drew the pictures, in the words of the graphics library.
        settings: Parameters that shape the pictures.
        dataset_digest: Of the prepared store.
        depth_unit: Size of one step of stored depth, in radii.
        digest: SHA-256 over the settings, the store and all pictures.
    """

    layout: str
    size: int
    intrinsics: Float64[np.ndarray, "3 3"]
    poses: Float64[np.ndarray, "v 4 4"]
    renderer: str
    device: str
    settings: Mapping[str, Any]
    dataset_digest: str
    depth_unit: float = DEPTH_UNIT
    digest: str = ""


def encode_views(
    uid: str,
    rgb: Sequence[UInt8[np.ndarray, "h w 3"]],
    depth: Sequence[Float32[np.ndarray, "h w"]],
    *,
    valid: Sequence[bool],
) -> ObjectViews:
    """Encode pictures as they are stored.

    Args:
        uid: Of the object.
        rgb: One picture per view.
        depth: Eye depth in radii, 0 for the background; values are rounded to 1/8192.
        valid: Which views show the object.
    """
    return ObjectViews(
        uid=uid,
        rgb=tuple(_encode(picture, "JPEG", quality=JPEG_QUALITY, subsampling=0) for picture in rgb),
        depth=tuple(_encode(_to_steps(picture), "PNG", compress_level=1) for picture in depth),
        valid=tuple(bool(v) for v in valid),
        coverage=tuple(round(float((picture > 0).mean()), 6) for picture in depth),
    )


def _to_steps(depth: Float32[np.ndarray, "h w"]) -> NDArray[np.uint16]:
    steps: NDArray[np.uint16] = np.rint(np.clip(depth / DEPTH_UNIT, 0, 65535)).astype(np.uint16)
    return steps


def _encode(picture: NDArray[Any], file_format: str, **options: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, file_format, **options)
    return buffer.getvalue()


def write_views(
    folder: Path, objects: Iterable[ObjectViews], *, info: ViewsInfo, failures: Sequence[Failure] = ()
) -> ViewsInfo:
    """Write all views into an empty folder.

    Args:
        folder: An existing folder; the caller puts it in place.
        objects: Streamed, one at a time is in memory.
        info: Description without a digest.
        failures: Objects without a usable view.

    Returns:
        The description with its digest.

    Raises:
        DataError: There is no object, or one has another number of views than ``info``.
    """
    import pyarrow as pa
    from pyarrow import parquet

    (folder / "views").mkdir()
    digest = hashlib.sha256(json.dumps([FORMAT, _as_json(info)], sort_keys=True).encode())
    columns: dict[str, list[Any]] = {name: [] for name in ("uid", "shard", "row", "valid", "coverage")}
    writer = _ShardWriter(folder / "views")
    for views in objects:
        counts = {len(views.rgb), len(views.depth), len(views.valid), len(views.coverage)}
        if counts != {len(info.poses)}:
            raise DataError(f"{folder}: object {views.uid} has {sorted(counts)} views, expected {len(info.poses)}")
        shard, row = writer.append(views)
        for name, value in zip(columns, (views.uid, shard, row, views.valid, views.coverage), strict=True):
            columns[name].append(value)
        for picture in (views.uid.encode(), *views.rgb, *views.depth):
            digest.update(picture)
    writer.close()
    if not columns["uid"]:
        raise DataError(f"{folder}: there is not a single object with a usable view; see failures.jsonl")
    parquet.write_table(pa.table(columns), folder / "index.parquet")
    write_failures(folder, failures)
    info = replace(info, digest=digest.hexdigest())
    description = {"format": FORMAT, "kind": "views", **_as_json(info)}
    (folder / _DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return info


def _as_json(info: ViewsInfo) -> dict[str, Any]:
    values = {**vars(info), "settings": dict(info.settings)}
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in values.items()}


class _ShardWriter:
    """Append encoded pictures to shards: the bytes of a kind in one array, and where each picture ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._file: h5py.File | None = None

    def append(self, views: ObjectViews) -> tuple[int, int]:
        """Write one object; return its shard and row."""
        import h5py

        shard, row = divmod(self._count, SHARD_SIZE)
        if row == 0:
            self.close()
            self._file = h5py.File(_shard_path(self._folder, shard), "w")
            for kind in _KINDS:
                self._file.create_dataset(
                    kind, shape=(0,), maxshape=(None,), chunks=(1 << 18,), dtype=np.uint8, fletcher32=True
                )
                shape, limit = (0, len(views.valid)), (SHARD_SIZE, len(views.valid))
                self._file.create_dataset(f"{kind}_end", shape=shape, maxshape=limit, dtype=np.int64)
        assert self._file is not None
        for kind in _KINDS:
            pictures: tuple[bytes, ...] = getattr(views, kind)
            content, ends = self._file[kind], self._file[f"{kind}_end"]
            start = len(content)
            stops = start + np.cumsum([len(picture) for picture in pictures])
            content.resize(int(stops[-1]), axis=0)
            content[start:] = np.frombuffer(b"".join(pictures), dtype=np.uint8)
            ends.resize(row + 1, axis=0)
            ends[row] = stops
        self._count += 1
        return shard, row

    def close(self) -> None:
        """Finish the shard that is being written."""
        if self._file is not None:
            self._file.close()


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.h5"


class ViewStore:
    """Read rendered views; shards are opened once per process, on first use.

    Attributes:
        path: Folder of the views.
        info: What ``views.json`` says.
        uids: (A,) objects that have views, in the order of the prepared store.
        valid: (A, V) which views show the object; the others are white or nearly so and must not be used.
        coverage: (A, V) part of the picture that the object fills.
        row_of: Row by uid.
    """

    def __init__(self, path: Path | str, *, dataset_digest: str | None = None) -> None:
        """Open the views.

        Args:
            path: Folder of the views.
            dataset_digest: Of the prepared store that they must belong to; None does not ask.

        Raises:
            DataError: There are no views, they are damaged, or they belong to another store.
        """
        self.path = Path(path)
        self.info = _read_info(self.path)
        if dataset_digest is not None and self.info.dataset_digest != dataset_digest:
            raise DataError(
                f"{self.path}: the views were rendered from another prepared store ({self.info.dataset_digest[:12]}, "
                f"expected {dataset_digest[:12]}); run `pointloom render` again"
            )
        index = _read_index(self.path)
        self.uids: NDArray[np.str_] = np.array(index["uid"], dtype=np.str_)
        self.valid: Bool[np.ndarray, "a v"] = np.array(index["valid"], dtype=bool)
        self.coverage: Float32[np.ndarray, "a v"] = np.array(index["coverage"], dtype=np.float32)
        self.row_of = {uid: row for row, uid in enumerate(index["uid"])}
        self._location = np.array([index["shard"], index["row"]], dtype=np.int64).T
        self._files: dict[tuple[int, int], h5py.File] = {}

    def __len__(self) -> int:
        return len(self.uids)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}

    def rgb(self, row: int, views: Sequence[int] | None = None) -> UInt8[np.ndarray, "v h w 3"]:
        """Return the colour pictures of an object on white, of all views or of those asked for.

        Raises:
            DataError: A picture is damaged.
        """
        return self._decode("rgb", row, views)

    def depth(self, row: int, views: Sequence[int] | None = None) -> Float32[np.ndarray, "v h w"]:
        """Return eye depth in radii, 0 for the background, of all views or of those asked for.

        Raises:
            DataError: A picture is damaged.
        """
        return self._decode("depth", row, views).astype(np.float32) * np.float32(self.info.depth_unit)

    def failures(self) -> list[dict[str, str]]:
        """Return the objects without a usable view: ``path``, ``reason`` and ``detail`` of each."""
        lines = (self.path / "failures.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def _decode(self, kind: str, row: int, views: Sequence[int] | None) -> NDArray[Any]:
        from PIL import Image

        shard, at = self._location[row]
        path = _shard_path(self.path / "views", int(shard))
        chosen = range(len(self.info.poses)) if views is None else views
        try:
            file = self._shard(path, int(shard))
            ends = file[f"{kind}_end"][at]
            first = int(file[f"{kind}_end"][at - 1, -1]) if at else 0
            content = file[kind][first : int(ends[-1])].tobytes()
            starts = np.concatenate([[first], ends[:-1]]) - first
            pictures = [np.asarray(Image.open(io.BytesIO(content[starts[v] : ends[v] - first]))) for v in chosen]
            shape = (self.info.size, self.info.size, 3) if kind == "rgb" else (self.info.size, self.info.size)
            if any(picture.shape != shape for picture in pictures):
                raise ValueError(f"a picture is {pictures[0].shape}, expected {shape}")
        except (OSError, KeyError, ValueError, SyntaxError) as error:
            raise DataError(
                f"{path}: {kind} of object {self.uids[row]} is damaged ({error}); run `pointloom render` again"
            ) from error
        return np.stack(pictures)

    def _shard(self, path: Path, shard: int) -> "h5py.File":
        import h5py

        key = (os.getpid(), shard)
        if key not in self._files:
            self._files[key] = h5py.File(path, "r")
        return self._files[key]


def _read_info(path: Path) -> ViewsInfo:
    file = path / _DESCRIPTION
    if not file.is_file():
        raise DataError(f"{path}: no views here ({_DESCRIPTION} is missing); run `pointloom render` first")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content.pop("format")
        content.pop("kind")
        if version != FORMAT:
            raise DataError(f"{file}: format {version}, expected {FORMAT}; run `pointloom render` again")
        arrays = {name: np.array(content[name], dtype=np.float64) for name in ("intrinsics", "poses")}
        return ViewsInfo(**(content | arrays))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: damaged ({error}); run `pointloom render` again") from error


def _read_index(path: Path) -> dict[str, list[Any]]:
    from pyarrow import ArrowException, parquet

    try:
        table: dict[str, list[Any]] = parquet.read_table(path / "index.parquet").to_pydict()
    except (OSError, ArrowException) as error:
        raise DataError(f"{path / 'index.parquet'}: cannot be read ({error}); run `pointloom render` again") from error
    return table

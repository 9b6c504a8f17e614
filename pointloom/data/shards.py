"""The prepared store on disk; nothing else in the package knows its layout.

``dataset.json`` describes the store, ``index.parquet`` has one row per object, ``points/00000.h5`` and so on hold at
most 4,096 objects each, and ``failures.jsonl`` lists the inputs that were left out. Coordinates are in the object
frame: +Z up, bounding-box centre at the origin, bounding sphere of radius 1. Points are in farthest-point order, so
that the first k of them are a farthest-point subset of k.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pointloom.data.records import NO_PART, SPLITS, Failure, ObjectPoints, ObjectRecord, StoreInfo
from pointloom.data.replace import replaced_folder
from pointloom.data.stored_rows import StoredRows
from pointloom.errors import DataError

if TYPE_CHECKING:
    import h5py

FORMAT = 1
SHARD_SIZE = 4096
CHUNK_POINTS = 2048
BYTES_PER_POINT = 12 + 6 + 3 + 1
_WRITE_BLOCK = 64
_ARRAYS = {"coord": "float32", "normal": "float16", "color": "uint8", "segment": "uint8"}


def write_failures(folder: Path, failures: Sequence[Failure]) -> Path:
    """Write ``failures.jsonl`` (empty when nothing failed) and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "failures.jsonl"
    path.write_text("".join(json.dumps(asdict(failure)) + "\n" for failure in failures), encoding="utf-8")
    return path


def write_store(
    target: Path,
    objects: Iterable[tuple[ObjectRecord, ObjectPoints]],
    *,
    num_points: int,
    source: str,
    settings: Mapping[str, Any],
    failures: Sequence[Failure] = (),
    parts: Mapping[str, Sequence[str]] | None = None,
    notes: Sequence[str] = (),
    classes: Sequence[str] | None = None,
) -> StoreInfo:
    """Write a complete store beside ``target`` and put it in place in one step.

    Args:
        target: Folder of the store; an older one is replaced only when the new one is complete.
        objects: Streamed, at most 64 are in memory at a time.
        num_points: Points per object.
        source: ``folder``, ``synthetic``, or the name of a published data set.
        settings: Parameters that shape the points; part of the digest.
        failures: Inputs that were left out.
        parts: Part names per category; segments are stored only when given.
        notes: Sentences for the report.
        classes: Class names in label order; None sorts the categories of the labelled objects.

    Raises:
        DataError: There is no object, or two have the same uid.
    """
    with replaced_folder(target) as partial:
        (partial / "points").mkdir()
        records = _write_shards(partial / "points", objects, num_points=num_points, with_segments=bool(parts))
        if not records:
            raise DataError(
                f"{target}: there is not a single object to store; see failures.jsonl and the source folder"
            )
        if len({record.uid for record in records}) != len(records):
            raise DataError(f"{target}: two objects have the same uid; uids must be unique")
        found = {r.category for r in records if r.category is not None and r.split != "pretrain"}
        names = tuple(sorted(found) if classes is None else classes)
        labels = [_label(record, names) for record in records]
        _write_index(partial / "index.parquet", records, labels)
        info = StoreInfo(
            num_points=num_points,
            classes=names,
            source=source,
            digest=_digest(records, labels, settings),
            counts=_counts(records, labels),
            quarantined=len(failures),
            parts={category: list(names) for category, names in (parts or {}).items()},
            notes=list(notes),
            settings=dict(settings),
        )
        write_failures(partial, failures)
        description = {"format": FORMAT, "kind": "objects", **asdict(info)}
        (partial / "dataset.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return info


def _write_shards(
    folder: Path, objects: Iterable[tuple[ObjectRecord, ObjectPoints]], *, num_points: int, with_segments: bool
) -> list[ObjectRecord]:
    import h5py

    records: list[ObjectRecord] = []
    stream = iter(objects)
    while block := list(islice(stream, _WRITE_BLOCK)):
        row = len(records) % SHARD_SIZE
        with h5py.File(_shard_path(folder, len(records) // SHARD_SIZE), "a") as file:
            _append(file, row, block, num_points=num_points, with_segments=with_segments)
        records.extend(record for record, _ in block)
    return records


def _append(
    file: "h5py.File",
    row: int,
    block: list[tuple[ObjectRecord, ObjectPoints]],
    *,
    num_points: int,
    with_segments: bool,
) -> None:
    import h5py

    end = row + len(block)
    for name, dtype in _ARRAYS.items():
        if name == "segment" and not with_segments:
            continue
        shape = (num_points,) if name == "segment" else (num_points, 3)
        if name not in file:
            chunks = (1, min(CHUNK_POINTS, num_points), *shape[1:])
            file.create_dataset(name, shape=(0, *shape), maxshape=(None, *shape), chunks=chunks, dtype=dtype)
        file[name].resize(end, axis=0)
        file[name][row:end] = np.stack([_array(points, name, num_points) for _, points in block]).astype(dtype)
    if "uid" not in file:
        file.create_dataset("uid", shape=(0,), maxshape=(None,), chunks=(1024,), dtype=h5py.string_dtype())
    file["uid"].resize(end, axis=0)
    file["uid"][row:end] = [record.uid for record, _ in block]


def _array(points: ObjectPoints, name: str, num_points: int) -> NDArray[Any]:
    if name == "segment" and points.segment is None:
        return np.full(num_points, NO_PART, dtype=np.uint8)
    array: NDArray[Any] = getattr(points, name)
    return array


def _label(record: ObjectRecord, classes: tuple[str, ...]) -> int:
    return -1 if record.category is None or record.split == "pretrain" else classes.index(record.category)


def _write_index(path: Path, records: list[ObjectRecord], labels: list[int]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, Any] = {name: [getattr(r, name) for r in records] for name in ObjectRecord.__dataclass_fields__}
    columns["label"] = pa.array(labels, pa.int32())
    columns["shard"] = pa.array([i // SHARD_SIZE for i in range(len(records))], pa.int32())
    columns["row"] = pa.array([i % SHARD_SIZE for i in range(len(records))], pa.int32())
    columns["category"] = pa.array(columns["category"], pa.string())
    columns["transform"] = pa.array(columns["transform"], pa.list_(pa.float64()))
    for name in ("attributes", "captions"):
        columns[name] = pa.array(columns[name], pa.list_(pa.string()))
    parquet.write_table(pa.table(columns), path)


def _digest(records: list[ObjectRecord], labels: list[int], settings: Mapping[str, Any]) -> str:
    rows = [[r.uid, label, r.split, r.category, r.sha256] for r, label in zip(records, labels, strict=True)]
    content = json.dumps([FORMAT, dict(settings), rows], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _counts(records: list[ObjectRecord], labels: list[int]) -> dict[str, int]:
    counts = {"objects": len(records)} | {split: sum(r.split == split for r in records) for split in SPLITS}
    counts["unlabelled"] = sum(label < 0 for label in labels)
    for record in records:
        for warning in record.status.split(","):
            if warning != "ok":
                counts[warning] = counts.get(warning, 0) + 1
    return counts


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.h5"


class ObjectStore:
    """Read a prepared store; shards are opened once per process, on first use.

    Attributes:
        path: Folder of the store.
        info: What ``dataset.json`` says.
        uids: (A,) unique names.
        labels: (A,) int64 class per object, -1 where unknown.
        splits: (A,) ``train``, ``test`` or ``pretrain``.
        groups: (A,) names of groups.
        categories: (A,) class names, empty where unknown.
        paths: (A,) source files.
        names: (A,) short names.
        attributes: Words per object.
        captions: Sentences per object.
        index: All columns of ``index.parquet``.
    """

    def __init__(self, path: Path | str) -> None:
        """Open the store.

        Raises:
            DataError: There is no store, or it is incomplete or of another format.
        """
        self.path = Path(path)
        self.info = _read_info(self.path)
        self.index = read_index(self.path)
        self.uids: NDArray[np.str_] = np.array(self.index["uid"], dtype=np.str_)
        self.labels: NDArray[np.int64] = np.array(self.index["label"], dtype=np.int64)
        self.splits: NDArray[np.str_] = np.array(self.index["split"], dtype=np.str_)
        self.groups: NDArray[np.str_] = np.array(self.index["group"], dtype=np.str_)
        self.categories: NDArray[np.str_] = np.array([c or "" for c in self.index["category"]], dtype=np.str_)
        self.paths: NDArray[np.str_] = np.array(self.index["path"], dtype=np.str_)
        self.names: NDArray[np.str_] = np.array(self.index["name"], dtype=np.str_)
        self.attributes: list[list[str]] = self.index["attributes"]
        self.captions: list[list[str]] = self.index["captions"]
        self._location = np.array([self.index["shard"], self.index["row"]], dtype=np.int64).T
        self._arrays: dict[tuple[int, str, int], StoredRows] = {}

    def __len__(self) -> int:
        return len(self.uids)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_arrays": {}}

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the index rows of ``train``, ``test`` or ``pretrain``.

        Raises:
            ValueError: The split has another name.
        """
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
        return np.flatnonzero(self.splits == split)

    def coords(self, rows: NDArray[np.int64], num_points: int | None = None) -> NDArray[np.float32]:
        """Return (R, num_points, 3) coordinates; fewer points than stored are the farthest-point subset."""
        return self._read("coord", rows, num_points)

    def normals(self, rows: NDArray[np.int64], num_points: int | None = None) -> NDArray[np.float32]:
        """Return (R, num_points, 3) unit normals."""
        return self._read("normal", rows, num_points).astype(np.float32)

    def colors(self, rows: NDArray[np.int64], num_points: int | None = None) -> NDArray[np.uint8]:
        """Return (R, num_points, 3) sRGB colours, 0 to 255."""
        return self._read("color", rows, num_points)

    def segments(self, rows: NDArray[np.int64], num_points: int | None = None) -> NDArray[np.uint8]:
        """Return (R, num_points) part ids; ``info.parts[category]`` names them, 255 is unknown.

        Raises:
            DataError: The store has no parts.
        """
        if not self.info.parts:
            raise DataError(f"{self.path}: this store has no part labels; synthetic objects have them")
        return self._read("segment", rows, num_points)

    def failures(self) -> list[dict[str, str]]:
        """Return the inputs that were left out: ``path``, ``reason`` and ``detail`` of each."""
        path = self.path / "failures.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def _read(self, name: str, rows: NDArray[np.int64], num_points: int | None) -> NDArray[Any]:
        num = self.info.num_points if num_points is None else num_points
        if not 1 <= num <= self.info.num_points:
            raise DataError(
                f"{self.path}: asked for {num} points per object, the store has {self.info.num_points}; "
                "lower num_points of this stage or raise prepare.num_points and run `pointloom prepare` again"
            )
        rows = np.asarray(rows, dtype=np.int64)
        shape = (len(rows), num) if name == "segment" else (len(rows), num, 3)
        result = np.empty(shape, dtype=_ARRAYS[name])
        for shard in np.unique(self._location[rows, 0]):
            where = np.flatnonzero(self._location[rows, 0] == shard)
            self._stored(name, int(shard)).copy(self._location[rows[where], 1], result, where)
        return result

    def _stored(self, name: str, shard: int) -> StoredRows:
        import h5py

        key = (os.getpid(), name, shard)
        if key not in self._arrays:
            path = _shard_path(self.path / "points", shard)
            try:
                with h5py.File(path, "r") as file:
                    self._arrays[key] = StoredRows(file[name], path)
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error}); run `pointloom prepare` again") from error
        return self._arrays[key]


def _read_info(path: Path) -> StoreInfo:
    file = path / "dataset.json"
    if not file.is_file():
        raise DataError(f"{path}: no prepared store here (dataset.json is missing); run `pointloom prepare` first")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content.pop("format")
        if (kind := content.pop("kind")) != "objects":
            raise DataError(
                f"{file}: kind {kind!r}, expected 'objects'; prepare with a source of objects, such as folder"
            )
        if version != FORMAT:
            raise DataError(f"{file}: format {version}, expected {FORMAT}; run `pointloom prepare` again")
        return StoreInfo(**(content | {"classes": tuple(content["classes"])}))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: damaged ({error}); run `pointloom prepare` again") from error


def read_index(path: Path) -> dict[str, list[Any]]:
    """Read the columns of a store's index.

    Raises:
        DataError: It is missing or damaged.
    """
    from pyarrow import ArrowException, parquet

    try:
        table: dict[str, list[Any]] = parquet.read_table(path / "index.parquet").to_pydict()
    except (OSError, ArrowException) as error:
        raise DataError(f"{path / 'index.parquet'}: cannot be read ({error}); run `pointloom prepare` again") from error
    return table

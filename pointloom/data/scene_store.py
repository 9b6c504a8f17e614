"""Prepared scenes on disk; nothing else in the package knows this layout.

``dataset.json`` describes the store, ``index.parquet`` has one row per scene with its sentences, ``scenes/00000.h5``
and so on hold a group of arrays per scene, and ``failures.jsonl`` lists the scans that were left out.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pointloom.data.records import SPLITS, Failure
from pointloom.data.replace import replaced_folder
from pointloom.data.scene_checks import check_scene, oddities, oddity_notes, without_empty_boxes
from pointloom.data.scenes import Scene, SceneBoxes, Sentence
from pointloom.data.shards import read_index, write_failures
from pointloom.errors import DataError

if TYPE_CHECKING:
    import h5py

FORMAT = 1
KIND = "scenes"
SHARD_POINTS = 2**24
"""A shard that has more points than this takes no further scene."""
_POINT_ARRAYS = {
    "coord": "float32", "color": "uint8", "normal": "float16", "segment": "int16", "instance": "int32",
    "superpoint": "int32",
}  # fmt: skip
_IN_MEMORY = _POINT_ARRAYS | {"normal": "float32"}
_BOX_ARRAYS = {"center": "float32", "size": "float32", "heading": "float32", "label": "int64", "instance": "int64"}


@dataclass(frozen=True)
class SceneStoreInfo:
    """What ``dataset.json`` says.

    Attributes:
        classes: Names of the points' classes in label order.
        box_classes: Names of the boxes' classes in label order; empty without boxes.
        source: Name of the data set.
        digest: SHA-256 over all scenes, classes and settings.
        counts: Number of scenes, of points, per split, of boxes, of sentences, and of scenes with each oddity.
        aligned: Whether the axes of all scenes were turned along the walls; scenes of the two kinds are never mixed.
        quarantined: Number of scans left out.
        notes: Sentences for the reader of a report.
        settings: Parameters of the preparation.
    """

    classes: tuple[str, ...]
    box_classes: tuple[str, ...]
    source: str
    digest: str
    counts: dict[str, int]
    aligned: bool
    quarantined: int = 0
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


def write_scenes(
    target: Path,
    scenes: Iterable[Scene],
    *,
    classes: Sequence[str],
    box_classes: Sequence[str],
    source: str,
    settings: Mapping[str, Any],
    notes: Sequence[str] = (),
    failures: Sequence[Failure] = (),
) -> SceneStoreInfo:
    """Write all scenes beside ``target`` and put them in place in one step.

    Boxes without a volume are left out and counted as ``boxes_left_out``.

    Args:
        target: Folder; an older one is replaced only when the new one is complete.
        scenes: Streamed, one is in memory at a time.
        classes: Names of the points' classes in label order.
        box_classes: Names of the boxes' classes in label order.
        source: Name of the data set.
        settings: Parameters of the preparation; part of the digest.
        notes: Sentences for the reader of a report; as ``failures``, the stream may add to them.
        failures: Scans that were left out; looked at when all scenes are written.

    Raises:
        DataError: There is no scene, two have the same name, some are aligned and others not, or one cannot be used.
    """
    head = [FORMAT, list(classes), list(box_classes), dict(settings)]
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    counts: Counter[str] = Counter()

    def usable() -> Iterator[Scene]:
        for scene in scenes:
            check_scene(scene, num_classes=len(classes), num_box_classes=len(box_classes))
            kept = without_empty_boxes(scene)
            _count(counts, scene, kept)
            yield kept

    with replaced_folder(target) as partial:
        rows = _write_shards(partial, target, usable(), digest)
        if not rows:
            raise DataError(f"{target}: there is not a single scene to store{_why(failures)}")
        _write_index(partial / "index.parquet", rows)
        info = SceneStoreInfo(
            classes=tuple(classes),
            box_classes=tuple(box_classes),
            source=source,
            digest=digest.hexdigest(),
            counts={"scenes": len(rows)} | dict(counts),
            aligned=rows[0]["aligned"],
            quarantined=len(failures),
            notes=[*notes, *oddity_notes(counts, len(rows)), *_box_note(counts)],
            settings=dict(settings),
        )
        write_failures(partial, failures)
        content = {"format": FORMAT, "kind": KIND, **asdict(info)}
        (partial / "dataset.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return info


def _write_shards(folder: Path, target: Path, scenes: Iterable[Scene], digest: Any) -> list[dict[str, Any]]:
    """Write scenes and return a row of the index for each; ``target`` is for messages."""
    (folder / "scenes").mkdir()
    rows: dict[str, dict[str, Any]] = {}
    shard, points = 0, 0
    for scene in scenes:
        _check_fits(target, scene, rows)
        if points > SHARD_POINTS:
            shard, points = shard + 1, 0
        _write_scene(_shard_path(folder, shard), len(rows), scene, digest)
        points += len(scene.coord)
        rows[scene.name] = _index_row(scene, shard)
    return list(rows.values())


def _check_fits(target: Path, scene: Scene, rows: dict[str, dict[str, Any]]) -> None:
    if scene.name in rows:
        raise DataError(f"{target}: two scenes have the name {scene.name}; names must be unique")
    if scene.split not in SPLITS:
        raise DataError(f"{target}: {scene.name} is of split {scene.split!r}; known: {', '.join(SPLITS)}")
    first = next(iter(rows.values()), None)
    if first is not None and first["aligned"] != scene.aligned:
        kinds = {True: "aligned with the walls", False: "not aligned"}
        raise DataError(
            f"{target}: {scene.name} is {kinds[scene.aligned]}, {first['name']} is {kinds[not scene.aligned]}; boxes "
            "and features of the two kinds do not fit together: prepare one store of each kind"
        )


def _why(failures: Sequence[Failure]) -> str:
    return f"; {len(failures)} were left out, such as {failures[0].path}: {failures[0].detail}" if failures else ""


def _box_note(counts: Counter[str]) -> list[str]:
    left_out = counts["boxes_left_out"]
    return [f"{left_out} boxes have no volume and were left out."] if left_out else []


def _write_scene(path: Path, row: int, scene: Scene, digest: Any) -> None:
    """Append a scene to a shard and to the digest."""
    import h5py

    arrays = {name: (getattr(scene, name), dtype) for name, dtype in _POINT_ARRAYS.items()}
    if scene.boxes is not None:
        arrays |= {f"box_{name}": (getattr(scene.boxes, name), dtype) for name, dtype in _BOX_ARRAYS.items()}
    words = [scene.name, scene.split, scene.group, scene.aligned, [vars(s) for s in scene.sentences]]
    digest.update(json.dumps(words).encode())
    with h5py.File(path, "a") as file:
        group = file.create_group(f"{row:06d}")
        for name, (array, dtype) in arrays.items():
            if array is not None:
                group[name] = np.ascontiguousarray(array, dtype=dtype)
                digest.update(name.encode() + np.ascontiguousarray(array, dtype=dtype).tobytes())


def _index_row(scene: Scene, shard: int) -> dict[str, Any]:
    return {
        "name": scene.name,
        "split": scene.split,
        "group": scene.group,
        "aligned": scene.aligned,
        "num_points": len(scene.coord),
        "num_boxes": 0 if scene.boxes is None else len(scene.boxes.label),
        "shard": shard,
        "sentence": [sentence.text for sentence in scene.sentences],
        "sentence_instance": [sentence.instance for sentence in scene.sentences],
        "sentence_unique": [sentence.unique for sentence in scene.sentences],
    }


def _write_index(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    lists = {"sentence": pa.string(), "sentence_instance": pa.int64(), "sentence_unique": pa.bool_()}
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    columns |= {name: pa.array(columns[name], pa.list_(kind)) for name, kind in lists.items()}
    parquet.write_table(pa.table(columns), path)


def _count(counts: Counter[str], given: Scene, scene: Scene) -> None:
    boxes, all_boxes = (0 if s.boxes is None else len(s.boxes.label) for s in (scene, given))
    counts.update({"points": len(scene.coord), scene.split: 1, "boxes": boxes, "sentences": len(scene.sentences)})
    counts.update(oddities(scene))
    if all_boxes > boxes:
        counts["boxes_left_out"] += all_boxes - boxes


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / "scenes" / f"{shard:05d}.h5"


class SceneStore:
    """Read prepared scenes; shards are opened once per process, on first use.

    Attributes:
        path: Folder of the store.
        info: What ``dataset.json`` says.
        names: (R,) unique names.
        splits: (R,) ``train``, ``test`` or ``pretrain``.
        groups: (R,) areas or buildings.
        num_points: (R,) int64.
        sentences: Sentences per scene.
    """

    def __init__(self, path: Path | str) -> None:
        """Open the store.

        Raises:
            DataError: There are no prepared scenes, or they are damaged.
        """
        self.path = Path(path)
        self.info = _read_info(self.path / "dataset.json")
        index = read_index(self.path)
        self.names: NDArray[np.str_] = np.array(index["name"], dtype=np.str_)
        self.splits: NDArray[np.str_] = np.array(index["split"], dtype=np.str_)
        self.groups: NDArray[np.str_] = np.array(index["group"], dtype=np.str_)
        self.num_points: NDArray[np.int64] = np.array(index["num_points"], dtype=np.int64)
        columns = (index["sentence"], index["sentence_instance"], index["sentence_unique"])
        self.sentences = [tuple(map(Sentence, *row)) for row in zip(*columns, strict=True)]
        self._shard: NDArray[np.int64] = np.array(index["shard"], dtype=np.int64)
        self._files: dict[tuple[int, int], h5py.File] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the rows of ``train``, ``test`` or ``pretrain``.

        Raises:
            ValueError: The split has another name.
        """
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
        return np.flatnonzero(self.splits == split)

    def scene(self, row: int) -> Scene:
        """Read one scene.

        Raises:
            DataError: Its shard is damaged.
        """
        name, shard = str(self.names[row]), int(self._shard[row])
        try:
            group = self._file(shard)[f"{row:06d}"]
            points: dict[str, Any] = dict.fromkeys(_POINT_ARRAYS)
            points |= {key: group[key][()].astype(_IN_MEMORY[key]) for key in _POINT_ARRAYS if key in group}
            boxes = None
            if "box_label" in group:
                boxes = SceneBoxes(**{key: group[f"box_{key}"][()] for key in _BOX_ARRAYS})
        except (OSError, KeyError) as error:
            path = _shard_path(self.path, shard)
            raise DataError(f"{path}: scene {name} cannot be read ({error}); run `pointloom prepare` again") from error
        return Scene(
            name=name,
            **points,
            boxes=boxes,
            sentences=self.sentences[row],
            split=str(self.splits[row]),
            group=str(self.groups[row]),
            aligned=self.info.aligned,
        )

    def failures(self) -> list[dict[str, str]]:
        """Return the scans that were left out: ``path``, ``reason`` and ``detail`` of each."""
        path = self.path / "failures.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def _file(self, shard: int) -> "h5py.File":
        import h5py

        key = (os.getpid(), shard)
        if key not in self._files:
            self._files[key] = h5py.File(_shard_path(self.path, shard), "r")
        return self._files[key]


def _read_info(file: Path) -> SceneStoreInfo:
    if not file.is_file():
        raise DataError(
            f"{file.parent}: no prepared scenes here; run `pointloom prepare` with a source of scenes first"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version, kind = content.pop("format"), content.pop("kind")
        if kind != KIND or version != FORMAT:
            raise DataError(
                f"{file}: kind {kind!r} of format {version}, expected {KIND!r} of format {FORMAT}; prepare with a "
                "source of scenes such as synthetic_rooms or s3dis"
            )
        tuples = {name: tuple(content[name]) for name in ("classes", "box_classes")}
        return SceneStoreInfo(**(content | tuples))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: damaged ({error}); run `pointloom prepare` again") from error

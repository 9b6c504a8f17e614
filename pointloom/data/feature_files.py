"""Records of teacher features, and the writer of their folder; ``features.py`` reads it, nothing else knows the layout.

``features.json`` says which teachers there are and what they were made from, ``index.parquet`` has one row per object
of the prepared store, ``features/00000.h5`` and so on hold the vectors of at most 4,096 objects each, ``classes.h5``
the class names through each text teacher, and ``teachers/NAME.json`` what it takes to open a text teacher again.
Vectors have unit length and are float16; their length before is kept. What is missing (no caption, a view that shows
nothing) is NaN in the file, and every reader is told so by a mask.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

if TYPE_CHECKING:
    import h5py

FORMAT = 1
SHARD_SIZE = 4096
NO_TEXT = -1
_WRITE_BLOCK = 256
DESCRIPTION = "features.json"


@dataclass(frozen=True)
class FeatureInfo:
    """One teacher and what it looked at.

    Attributes:
        name: Unique in the folder.
        modality: ``text`` or ``image``.
        source: ``captions``, ``rgb`` or ``depth``.
        model: The teacher, for people.
        dim: Width of its vectors.
        key: SHA-256 over everything that decides the numbers: weights, preprocessing, input, precision.
    """

    name: str
    modality: Literal["text", "image"]
    source: Literal["captions", "rgb", "depth"]
    model: str
    dim: int
    key: str


@dataclass(frozen=True)
class FeaturesInfo:
    """What ``features.json`` says.

    Attributes:
        teachers: In the order of the parameters.
        classes: Class names in label order, as in the prepared store.
        dataset_digest: Of the prepared store.
        views_digest: Of the views.
        captions_digest: Of the captions.
        category: Whether captions may hold category words; None where there is no text.
        num_texts: Captions per object, K.
        num_views: Views per object, V.
        digest: SHA-256 over all keys, objects and texts.
    """

    teachers: tuple[FeatureInfo, ...]
    classes: tuple[str, ...]
    dataset_digest: str
    views_digest: str
    captions_digest: str
    category: bool | None
    num_texts: int
    num_views: int
    digest: str = ""


@dataclass(frozen=True)
class ObjectFeatures:
    """Features of one object on their way to the disk.

    Attributes:
        uid: Of the object.
        texts: At most K captions, best first.
        text_ids: Equal numbers are equal texts, over all objects.
        values: By teacher, (K, D) or (V, D) of any length; rows of NaN where something is missing.
    """

    uid: str
    texts: tuple[str, ...]
    text_ids: tuple[int, ...]
    values: Mapping[str, NDArray[np.float32]]


def write_features(
    folder: Path,
    objects: Iterable[ObjectFeatures],
    *,
    info: FeaturesInfo,
    class_text: Mapping[str, Float32[np.ndarray, "c d"]],
    reopen: Mapping[str, Mapping[str, Any]],
    made: Mapping[str, Path] | None = None,
) -> FeaturesInfo:
    """Write all features into an empty folder.

    Args:
        folder: An existing folder; the caller puts it in place.
        objects: Streamed, 256 are in memory at a time; all objects of the prepared store, in its order.
        info: Description without a digest.
        class_text: By text teacher, one vector per class.
        reopen: By text teacher, what its loader needs.
        made: By teacher whose vectors ``objects`` do not have, the folder of other features that has them, with the
            same key and for the same objects; they are copied.

    Returns:
        The description with its digest.
    """
    import h5py
    import pyarrow as pa
    from pyarrow import parquet

    (folder / "features").mkdir()
    (folder / "teachers").mkdir()
    index: dict[str, list[Any]] = {"uid": [], "texts": []}
    stream = iter(objects)
    while block := list(islice(stream, _WRITE_BLOCK)):
        shard, row = divmod(len(index["uid"]), SHARD_SIZE)
        with h5py.File(shard_path(folder, shard), "a") as file:
            _append(file, row, block, info, made or {})
        index["uid"].extend(o.uid for o in block)
        index["texts"].extend(list(o.texts) for o in block)
    for number in range(-(-len(index["uid"]) // SHARD_SIZE)):
        for name, other in (made or {}).items():
            with h5py.File(shard_path(folder, number), "a") as file, h5py.File(shard_path(other, number)) as source:
                source.copy(name, file)
    texts = pa.array(index["texts"], pa.list_(pa.string()))
    parquet.write_table(
        pa.table({"uid": pa.array(index["uid"], pa.string()), "texts": texts}), folder / "index.parquet"
    )
    with h5py.File(folder / "classes.h5", "w") as file:
        for name, value in class_text.items():
            file[name] = unit(value.astype(np.float32))
    for name, values in reopen.items():
        (folder / "teachers" / f"{name}.json").write_text(json.dumps(dict(values)) + "\n", encoding="utf-8")
    content = json.dumps([FORMAT, asdict(info), index], sort_keys=True)
    info = replace(info, digest=hashlib.sha256(content.encode()).hexdigest())
    description = {"format": FORMAT, "kind": "features", **asdict(info)}
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return info


def _append(
    file: "h5py.File", row: int, block: list[ObjectFeatures], info: FeaturesInfo, made: Mapping[str, Path]
) -> None:
    for teacher in info.teachers:
        if teacher.name in made:
            continue
        raw = np.stack([o.values[teacher.name] for o in block]).astype(np.float32)
        norm = np.linalg.norm(raw, axis=-1)
        usable = np.isfinite(norm) & (norm > 0)
        value = np.divide(raw, norm[..., None], out=np.full_like(raw, np.nan), where=usable[..., None])
        group = file.require_group(teacher.name)
        group.attrs["key"] = teacher.key
        _extend(group, "value", row, value.astype(np.float16))
        _extend(group, "norm", row, np.where(usable, norm, np.nan).astype(np.float32))
        _extend(group, "present", row, usable)
    if not any(teacher.modality == "text" for teacher in info.teachers):
        return
    ids = np.full((len(block), info.num_texts), NO_TEXT, dtype=np.int64)
    for i, o in enumerate(block):
        ids[i, : len(o.text_ids)] = o.text_ids
    _extend(file, "text_id", row, ids)


def _extend(group: "h5py.Group", name: str, row: int, values: NDArray[Any]) -> None:
    if name not in group:
        chunks = (1, *values.shape[1:]) if name == "value" else (1024, *values.shape[1:])
        shape, limit = (0, *values.shape[1:]), (None, *values.shape[1:])
        group.create_dataset(name, shape=shape, maxshape=limit, chunks=chunks, dtype=values.dtype)
    group[name].resize(row + len(values), axis=0)
    group[name][row:] = values


def unit(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors of length 1; zero vectors stay."""
    return value / np.maximum(np.linalg.norm(value, axis=-1, keepdims=True), np.finfo(np.float32).tiny)


def shard_path(folder: Path, shard: int) -> Path:
    """Return the file of a shard."""
    return folder / "features" / f"{shard:05d}.h5"

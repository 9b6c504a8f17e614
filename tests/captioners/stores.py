"""Small prepared stores and views, written through the real writers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointloom.data.records import ObjectPoints, ObjectRecord
from pointloom.data.replace import replaced_folder
from pointloom.data.shards import ObjectStore, write_store
from pointloom.data.views import ViewsInfo, ViewStore, encode_views, write_views

NUM_POINTS = 512
GREY = (160, 160, 160)


@dataclass(frozen=True)
class Thing:
    """An object for a store: a box of some size and colour."""

    category: str | None = "chair"
    size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    color: tuple[int, int, int] = (200, 30, 30)
    name: str = "thing"
    split: str = "train"
    captions: tuple[str, ...] = ()


def box(size: Sequence[float], *, num: int = NUM_POINTS, seed: int = 0) -> NDArray[np.float32]:
    """Points on the surface of a box, corners included, inside the unit sphere."""
    rng = np.random.default_rng(seed)
    coord = rng.uniform(-0.5, 0.5, (num, 3))
    face = rng.integers(0, 3, num)
    coord[np.arange(num), face] = np.where(coord[np.arange(num), face] < 0, -0.5, 0.5)
    coord[:8] = np.stack(np.meshgrid(*[[-0.5, 0.5]] * 3), -1).reshape(8, 3)
    return (coord * size / np.linalg.norm(np.asarray(size) / 2)).astype(np.float32)


def write_things(folder: Path, things: Sequence[Thing]) -> ObjectStore:
    """Prepare a store of things."""
    objects = []
    for i, thing in enumerate(things):
        record = ObjectRecord(
            uid=f"u{i:03d}", path=f"{thing.category}/{thing.name}_{i}.glb", name=f"{thing.name}_{i}",
            category=thing.category, group=f"g{i}", split=thing.split, up_axis="z",
            transform=tuple(np.eye(4).ravel()), sha256=f"{i:064d}", num_faces=12, captions=thing.captions,
        )  # fmt: skip
        coord = box(thing.size, seed=i)
        color = np.broadcast_to(np.array(thing.color, dtype=np.uint8), coord.shape).copy()
        objects.append((record, ObjectPoints(coord=coord, normal=np.zeros_like(coord), color=color)))
    write_store(folder, objects, num_points=NUM_POINTS, source="folder", settings={})
    return ObjectStore(folder)


def picture(seed: int, *, size: int = 32) -> NDArray[np.uint8]:
    """A smooth random picture that JPEG keeps."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((size // 4, size // 4, 1), dtype=np.uint8))


def write_random_views(
    folder: Path, store: ObjectStore, *, valid: Mapping[int, Sequence[bool]] | None = None, num_views: int = 2
) -> ViewStore:
    """Write views with a picture of its own per object and view.

    Args:
        folder: To write.
        store: Whose objects.
        valid: By row, which views show the object; all by default, an empty sequence leaves the object out.
        num_views: Per object.
    """
    info = ViewsInfo(
        layout="test", size=32, intrinsics=np.eye(3), poses=np.stack([np.eye(4)] * num_views), renderer="raycast",
        device="test", settings={}, dataset_digest=store.info.digest,
    )  # fmt: skip
    shown = {row: list((valid or {}).get(row, [True] * num_views)) for row in range(len(store))}
    depth = [np.ones((32, 32), dtype=np.float32)] * num_views
    objects = (
        encode_views(str(store.uids[row]), [picture(100 * row + v) for v in range(num_views)], depth, valid=shown[row])
        for row in range(len(store))
        if shown[row]
    )
    with replaced_folder(folder) as partial:
        write_views(partial, objects, info=info)
    return ViewStore(folder, dataset_digest=store.info.digest)

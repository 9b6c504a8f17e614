"""Prepared rooms on disk: ``dataset.json`` and ``rooms.h5``; nothing else in the package knows this layout."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointloom.data.replace import replaced_folder
from pointloom.data.shards import write_failures
from pointloom.datasets.s3dis import Room
from pointloom.errors import DataError

FORMAT = 1
KIND = "rooms"


@dataclass(frozen=True)
class RoomsInfo:
    """What ``dataset.json`` says.

    Attributes:
        classes: Names in label order.
        source: Name of the data set.
        digest: SHA-256 over all rooms.
        counts: Number of rooms, of points, and of rooms per area.
        quarantined: Number of rooms left out; always 0, a damaged room stops the preparation.
        notes: Sentences for the reader of a report.
        settings: Parameters of the preparation.
    """

    classes: tuple[str, ...]
    source: str
    digest: str
    counts: dict[str, int]
    quarantined: int = 0
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


def write_rooms(
    target: Path,
    rooms: Iterable[Room],
    *,
    classes: Sequence[str],
    source: str,
    settings: dict[str, Any],
    notes: Sequence[str] = (),
) -> RoomsInfo:
    """Write all rooms beside ``target`` and put them in place in one step.

    Args:
        target: Folder; an older one is replaced only when the new one is complete.
        rooms: Streamed, one is in memory at a time.
        classes: Names in label order.
        source: Name of the data set.
        settings: Parameters of the preparation; part of the digest.
        notes: Sentences for the reader of a report.

    Raises:
        DataError: There is no room.
    """
    import h5py

    digest = hashlib.sha256(json.dumps([FORMAT, list(classes), settings], sort_keys=True).encode())
    counts = {"objects": 0, "points": 0}
    with replaced_folder(target) as partial:
        with h5py.File(partial / "rooms.h5", "w") as file:
            for room in rooms:
                group = file.create_group(room.name)
                group.attrs["area"] = room.area
                digest.update(room.name.encode())
                for name in ("coord", "color", "label"):
                    group[name] = getattr(room, name)
                    digest.update(np.ascontiguousarray(getattr(room, name)).tobytes())
                counts["objects"] += 1
                counts["points"] += len(room.coord)
                counts[f"area_{room.area}"] = counts.get(f"area_{room.area}", 0) + 1
        if not counts["objects"]:
            raise DataError(f"{target}: there is not a single room to store")
        write_failures(partial, [])
        info = RoomsInfo(tuple(classes), source, digest.hexdigest(), counts, notes=list(notes), settings=settings)
        content = {"format": FORMAT, "kind": KIND, **asdict(info)}
        (partial / "dataset.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return info


class RoomStore:
    """Read prepared rooms.

    Attributes:
        path: Folder of the store.
        info: What ``dataset.json`` says.
        names: (R,) such as ``Area_5_office_1``.
        areas: (R,) int64.
        num_points: (R,) int64.
    """

    def __init__(self, path: Path | str) -> None:
        """Open the store.

        Raises:
            DataError: There are no prepared rooms, or they are damaged.
        """
        import h5py

        self.path = Path(path)
        self.info = _read_info(self.path / "dataset.json")
        try:
            with h5py.File(self.path / "rooms.h5", "r") as file:
                names = sorted(file)
                self.areas: NDArray[np.int64] = np.array([file[n].attrs["area"] for n in names], dtype=np.int64)
                self.num_points: NDArray[np.int64] = np.array([len(file[n]["label"]) for n in names], dtype=np.int64)
        except (OSError, KeyError) as error:
            raise DataError(f"{self.path / 'rooms.h5'}: damaged ({error}); run `pointloom prepare` again") from error
        self.names: NDArray[np.str_] = np.array(names, dtype=np.str_)

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, areas: Sequence[int]) -> NDArray[np.int64]:
        """Return the rows of the rooms of some areas."""
        return np.flatnonzero(np.isin(self.areas, list(areas)))

    def room(self, row: int) -> Room:
        """Read one room."""
        import h5py

        name = str(self.names[row])
        with h5py.File(self.path / "rooms.h5", "r") as file:
            arrays = {key: np.asarray(file[name][key]) for key in ("coord", "color", "label")}
        return Room(name=name, area=int(self.areas[row]), **arrays)


def _read_info(file: Path) -> RoomsInfo:
    if not file.is_file():
        raise DataError(f"{file.parent}: no prepared rooms here; run `pointloom prepare` with source s3dis first")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version, kind = content.pop("format"), content.pop("kind")
        if kind != KIND or version != FORMAT:
            raise DataError(
                f"{file}: kind {kind!r} of format {version}, expected {KIND!r} of format {FORMAT}; prepare with source "
                "s3dis"
            )
        return RoomsInfo(**(content | {"classes": tuple(content["classes"])}))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: damaged ({error}); run `pointloom prepare` again") from error

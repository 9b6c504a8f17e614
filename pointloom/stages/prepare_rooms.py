"""Prepare rooms: every point with its label, because a protocol draws its own blocks from them."""

import logging
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from pointloom.datasets import s3dis
from pointloom.datasets.rooms import RoomsInfo, write_rooms
from pointloom.errors import DataError, ParamsError

if TYPE_CHECKING:
    from pointloom.stages.prepare import PrepareParams

logger = logging.getLogger(__name__)


def prepare_rooms(params: "PrepareParams", *, source: Path, dataset: Path) -> RoomsInfo:
    """Turn S3DIS into a store of rooms; of the parameters only source and variant count.

    Raises:
        DataError: The folder does not hold S3DIS, a room is damaged, or the disk is too small.
        ParamsError: The variant is unknown.
    """
    if params.variant not in s3dis.VARIANTS:
        known = ", ".join(s3dis.VARIANTS)
        raise ParamsError(f"prepare.variant: S3DIS has the variants {known}; got {params.variant!r}")
    rooms = s3dis.find_rooms(source, params.variant)
    _check_disk(list(rooms.values()), dataset)
    notes = [f"S3DIS ({params.variant})."]
    if len(rooms) != sum(s3dis.NUM_ROOMS.values()):
        notes.append(f"The official data has {sum(s3dis.NUM_ROOMS.values())} rooms, this has {len(rooms)}.")
    for note in notes:
        logger.info(note)
    interval = 0.2 if sys.stderr.isatty() else 10.0
    items = tqdm(rooms.items(), desc="prepare", unit="room", mininterval=interval)
    info = write_rooms(
        dataset,
        (s3dis.read_room(name, path) for name, path in items),
        classes=s3dis.CLASSES,
        source=params.source,
        settings={"source": params.source, "variant": params.variant},
        notes=notes,
    )
    logger.info("prepared %d rooms, %d points, in %s", info.counts["objects"], info.counts["points"], dataset)
    return info


def _check_disk(paths: list[Path], dataset: Path) -> None:
    """Compare the free space with the size of the source, which is never smaller than the store."""
    files = [file for path in paths for file in (path.glob("*.txt") if path.is_dir() else [path])]
    needed = sum(file.stat().st_size for file in files)
    dataset.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(dataset.parent).free
    if free < needed:
        raise DataError(f"{dataset}: the rooms need up to {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")

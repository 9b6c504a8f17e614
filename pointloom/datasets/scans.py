"""A plain folder of scans without labels: PLY, PCD, npy and other clouds, one scene per file."""

import logging
import re
from pathlib import Path

import numpy as np

from pointloom.data.clouds import CLOUD_SUFFIXES, TEXT_SUFFIXES, Cloud, load_cloud, looks_numeric
from pointloom.data.intake import TO_Z_UP
from pointloom.data.quarantine import RejectedError
from pointloom.data.scene_checks import near_origin
from pointloom.data.scenes import Scene
from pointloom.data.surfaces import load_surface
from pointloom.datasets.card import Card, wrong_folder
from pointloom.datasets.scannet import read_mesh
from pointloom.datasets.scene_sets import FoundScenes, SceneChoices, SceneDataset, SceneItem, check_choices

logger = logging.getLogger(__name__)

SUFFIXES = (".ply", *CLOUD_SUFFIXES)

CARD = Card(
    name="scans",
    title="Your own scans",
    task="pre-training on scenes without labels",
    size="any",
    licence="yours",
    source="your scanner",
    trees={"files": f"scans/\n  kitchen.ply\n  hall/east.pcd     any names and sub-folders: {' '.join(SUFFIXES)}"},
    markers={"files": "**/*.ply"},
    folders=(),
    archives={},
)


def find(folder: Path, variant: str, choices: SceneChoices) -> FoundScenes:
    """Find all files; hidden ones and text without coordinates are left out.

    Raises:
        DataError: There is no scan.
    """
    check_choices(CARD.title, choices, "aligned", "meters", "up")
    items = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.suffix.lower() in SUFFIXES and not re.search(r"(^|/)\.", name) and _is_cloud(path):
            items.append(SceneItem(name, path, "pretrain", group=name))
    if not items:
        raise wrong_folder(CARD, folder, variant, "there is no scan in it")

    def read(item: SceneItem) -> Scene:
        return read_scan(item, choices)

    return FoundScenes(items, read, (), (), ["Scans have no classes: everything that needs labels is skipped."])


def _is_cloud(path: Path) -> bool:
    if path.suffix.lower() not in TEXT_SUFFIXES:
        return True
    with path.open(encoding="utf-8", errors="replace") as file:
        return looks_numeric(file.read(8192))


def read_scan(item: SceneItem, choices: SceneChoices) -> Scene:
    """Read one file; of a mesh, the vertices are the points. Normals that are not all finite are none.

    Raises:
        RejectedError: The file is damaged, empty or not finite.
    """
    cloud = _read_ply(item.path) if item.path.suffix.lower() == ".ply" else load_cloud(item.path)
    turn = TO_Z_UP["z" if choices.up == "auto" else choices.up]
    num = len(cloud.coord)
    coord, corner = near_origin(cloud.coord @ turn.T * choices.meters)
    if corner.any():
        logger.info(
            "%s is far from its origin: (%.0f, %.0f, %.0f) m were taken off its coordinates", item.name, *corner
        )
    known = cloud.normal is not None and np.isfinite(cloud.normal).all()
    return Scene(
        name=item.name,
        coord=coord,
        color=cloud.color,
        normal=(cloud.normal @ turn.T).astype(np.float32) if known and cloud.normal is not None else None,
        segment=np.full(num, -1, dtype=np.int16),
        instance=np.full(num, -1, dtype=np.int32),
        split=item.split,
        group=item.group,
        aligned=bool(choices.aligned),
    )


def _read_ply(path: Path) -> Cloud:
    with path.open("rb") as file:
        header = file.read(4096)
    if re.search(rb"element face +[1-9]", header):
        coord, color, normal = read_mesh(path)
        return Cloud(coord, color, normal.astype(np.float32))
    found = load_surface(path)
    if not isinstance(found, Cloud):
        raise RejectedError("unreadable", f"{path}: faces that its header does not announce")
    return found


DATASET = SceneDataset(card=CARD, variants=("files",), find=find)

"""Prepared scenes in the layouts that other code reads."""

from pathlib import Path

from pointloom.data.scene_store import SceneStore
from pointloom.datasets import pointcept, s3dis, scannet_votenet, sunrgbd
from pointloom.datasets.scannet_labels import CLASSES_20, IDS_200
from pointloom.errors import DataError


def export_scenes(store: SceneStore, folder: Path, *, layout: str, max_points: int | None, seed: int) -> int:
    """Write all scenes of a store in a layout of others.

    Args:
        store: Prepared scenes.
        folder: Must not be there yet, or be empty.
        layout: ``votenet``, ``votenet_sunrgbd``, ``pointcept``, ``pointcept_s3dis`` or ``s3dis_npy``.
        max_points: Of VoteNet's: a random part of larger scenes is kept; None keeps all.
        seed: Of that choice.

    Returns:
        Number of scenes.

    Raises:
        DataError: The folder has files, or the layout cannot hold these scenes.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is not empty; give another folder")
    scenes = (store.scene(row) for row in range(len(store)))
    classes = store.info.classes
    if layout == "votenet":
        return scannet_votenet.write_scans(
            folder, scenes, classes=classes, box_classes=store.info.box_classes, max_points=max_points, seed=seed
        )
    if layout == "votenet_sunrgbd":
        return sunrgbd.write_frames(
            folder, scenes, box_classes=store.info.box_classes, max_points=max_points, seed=seed
        )  # fmt: skip
    if layout == "s3dis_npy" and classes == s3dis.CLASSES:
        return s3dis.write_npy(folder, scenes)
    if layout == "pointcept_s3dis" and classes == s3dis.CLASSES:
        return pointcept.write_folders(folder, scenes, segment="segment.npy", areas=True)
    if layout == "pointcept" and classes == CLASSES_20.classes:
        return pointcept.write_folders(folder, scenes, segment="segment20.npy")
    if layout == "pointcept" and len(classes) == len(IDS_200):
        return pointcept.write_folders(folder, scenes, segment="segment200.npy")
    raise DataError(
        f"{store.path}: its {len(classes)} classes ({', '.join(classes[:3])} ...) are not those of layout {layout}: "
        "pointcept has ScanNet's 20 or 200, pointcept_s3dis and s3dis_npy the 13 of S3DIS"
    )

"""Published data sets: what they are, where to get them, and their official layouts."""

from pathlib import Path

from pointloom.datasets import (
    modelnet40,
    modelnet_fewshot,
    pointcept,
    s3dis,
    scannet,
    scannet_votenet,
    scanobjectnn,
    scans,
    shapenet55,
    shapenetpart,
    sunrgbd,
)
from pointloom.datasets.card import Card, ObjectDataset
from pointloom.datasets.scene_sets import SceneDataset

OBJECT_DATASETS: dict[str, ObjectDataset] = {
    "modelnet40": modelnet40.DATASET,
    "modelnet_fewshot": modelnet_fewshot.DATASET,
    "scanobjectnn": scanobjectnn.DATASET,
    "shapenet55": shapenet55.DATASET,
    "shapenetpart": shapenetpart.DATASET,
}
SCENE_DATASETS: dict[str, SceneDataset] = {
    "s3dis": s3dis.DATASET,
    "scannet": scannet.DATASET,
    "scannet_votenet": scannet_votenet.DATASET,
    "pointcept": pointcept.DATASET,
    "sunrgbd": sunrgbd.DATASET,
    "scans": scans.DATASET,
}
CARDS: dict[str, Card] = {name: dataset.card for name, dataset in OBJECT_DATASETS.items()} | {
    name: dataset.card for name, dataset in SCENE_DATASETS.items() if name != "scans"
}


def recognise_scenes(folder: Path) -> tuple[str, str]:
    """Return name and variant of the data set of scenes that a folder holds: plain scans where it is no other."""
    for name, dataset in SCENE_DATASETS.items():
        for variant in dataset.variants:
            if name != "scans" and dataset.card.locate(folder, variant) is not None:
                return name, variant
    return "scans", scans.DATASET.variants[0]

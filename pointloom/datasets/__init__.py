"""Published data sets: what they are, where to get them, and their official layouts."""

from pointloom.datasets import modelnet40, modelnet_fewshot, s3dis, scanobjectnn, shapenet55, shapenetpart
from pointloom.datasets.card import Card, ObjectDataset

OBJECT_DATASETS: dict[str, ObjectDataset] = {
    "modelnet40": modelnet40.DATASET,
    "modelnet_fewshot": modelnet_fewshot.DATASET,
    "scanobjectnn": scanobjectnn.DATASET,
    "shapenet55": shapenet55.DATASET,
    "shapenetpart": shapenetpart.DATASET,
}
CARDS: dict[str, Card] = {name: dataset.card for name, dataset in OBJECT_DATASETS.items()} | {"s3dis": s3dis.CARD}

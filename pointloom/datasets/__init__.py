"""Published data sets: what they are, where to get them, and their official layouts."""

from pointloom.datasets import shapenetpart
from pointloom.datasets.card import ObjectDataset

OBJECT_DATASETS: dict[str, ObjectDataset] = {dataset.card.name: dataset for dataset in (shapenetpart.DATASET,)}

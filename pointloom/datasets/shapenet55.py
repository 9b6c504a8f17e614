"""ShapeNet55-34: clouds of 8,192 points of 55 categories, one npy file each, for pre-training."""

from pathlib import Path

import numpy as np

from pointloom.data.quarantine import RejectedError
from pointloom.data.sources import SourceObject
from pointloom.datasets.card import (
    Card,
    Conventions,
    Found,
    ObjectDataset,
    Shape,
    check_files,
    find_root,
    read_lines,
    version,
)

ROOT = "ShapeNet55-34"
NUM_SHAPES = {"train": 41_952, "test": 10_518}
CATEGORIES = {
    **{"02691156": "airplane", "02747177": "trash bin", "02773838": "bag", "02801938": "basket", "02808440": "bathtub"},
    **{"02818832": "bed", "02828884": "bench", "02843684": "birdhouse", "02871439": "bookshelf", "02876657": "bottle"},
    **{"02880940": "bowl", "02924116": "bus", "02933112": "cabinet", "02942699": "camera", "02946921": "can"},
    **{"02954340": "cap", "02958343": "car", "02992529": "cellphone", "03001627": "chair", "03046257": "clock"},
    **{"03085013": "keyboard", "03207941": "dishwasher", "03211117": "display", "03261776": "earphone"},
    **{"03325088": "faucet", "03337140": "file cabinet", "03467517": "guitar", "03513137": "helmet", "03593526": "jar"},
    **{"03624134": "knife", "03636649": "lamp", "03642806": "laptop", "03691459": "loudspeaker", "03710193": "mailbox"},
    **{"03759954": "microphone", "03761084": "microwave", "03790512": "motorbike", "03797390": "mug"},
    **{"03928116": "piano", "03938244": "pillow", "03948459": "pistol", "03991062": "flowerpot", "04004475": "printer"},
    **{"04074963": "remote control", "04090263": "rifle", "04099429": "rocket", "04225987": "skateboard"},
    **{"04256520": "sofa", "04330267": "stove", "04379243": "table", "04401088": "telephone", "04460130": "tower"},
    **{"04468005": "train", "04530566": "watercraft", "04554684": "washer"},
}
"""WordNet synset to the name of the category."""
_TREE = f"""{ROOT}/
  ShapeNet-55/train.txt, test.txt                                    one file name per line
  shapenet_pc/02691156-10155655850468db78d106ce0a280f87.npy          (8192, 3)
  shapenet_pc/..."""

CARD = Card(
    name="shapenet55",
    title="ShapeNet55-34",
    task="pre-training",
    size="52,470 shapes of 55 categories, 8,192 points each; 5 GB",
    licence="ShapeNet terms of use: research and education, not commercial (https://shapenet.org/terms)",
    source="DATASET.md of https://github.com/Julie-tang00/Point-BERT (after registration at https://shapenet.org)",
    trees={"train_test": _TREE, "whole": _TREE},
    markers=dict.fromkeys(("train_test", "whole"), "ShapeNet-55/train.txt"),
    folders=(ROOT,),
    archives={},
)


def find(folder: Path, variant: str) -> Found:
    """Find all listed shapes; ``whole`` counts the test list as training, as some published pre-trainings do.

    Raises:
        DataError: The folder does not hold the data set.
    """
    root = find_root(CARD, folder, variant)
    clouds = root / "shapenet_pc"
    lines = {split: read_lines(root / "ShapeNet-55" / f"{split}.txt") for split in NUM_SHAPES}
    check_files(CARD, folder, variant, [clouds / name for names in lines.values() for name in names])
    objects = []
    for split, names in lines.items():
        for name in names:
            synset, _, model = name.removesuffix(".npy").partition("-")  # ids of models may hold dashes themselves
            path = clouds / name
            relative = path.relative_to(folder).as_posix()
            objects.append(
                SourceObject(
                    path=relative,
                    category=CATEGORIES.get(synset, synset),
                    name=model,
                    group=relative,
                    split="train" if variant == "whole" else split,
                    version=version(path),
                )
            )
    present = {o.category for o in objects}
    classes = [name for name in CATEGORIES.values() if name in present]
    classes += sorted(c for c in present if c is not None and c not in classes)
    counts = {split: len(names) for split, names in lines.items()}
    note = "" if counts == NUM_SHAPES else f"The official lists have {NUM_SHAPES}, these have {counts}."
    return Found(objects, tuple(classes), {}, [note] if note else [])


def load(folder: Path, source: SourceObject) -> Shape:
    """Read one cloud.

    Raises:
        RejectedError: The file is damaged.
    """
    try:
        coord = np.load(folder / source.path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise RejectedError("unreadable", str(error)) from error
    if coord.ndim != 2 or coord.shape[1] != 3:
        raise RejectedError("unreadable", f"expected points of shape (n, 3), got {coord.shape}")
    return Shape(coord=coord.astype(np.float32))


DATASET = ObjectDataset(
    card=CARD,
    variants=("train_test", "whole"),
    find=find,
    load=load,
    up="y",
    conventions=Conventions(frame="object", order="farthest", loader_transform="unit_sphere"),
)

"""``pointloom datasets export``: prepared scenes in the layouts of others."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pointloom.data.scene_store import SceneStore, write_scenes
from pointloom.data.scenes import Scene
from pointloom.dataset_commands import LAYOUTS, datasets
from pointloom.datasets.export import export_scenes
from pointloom.datasets.s3dis import CLASSES as S3DIS
from pointloom.datasets.scannet_labels import CLASSES_20
from pointloom.errors import DataError

FILES = {
    "votenet": "scannet_train_detection_data/Area_1_hall_vert.npy",
    "pointcept": "train/Area_1_hall/segment20.npy",
    "pointcept_s3dis": "Area_1/hall/segment.npy",
    "s3dis_npy": "stanford_indoor3d/Area_1_hall.npy",
    "votenet_sunrgbd": "sunrgbd_pc_bbox_votes_50k_v1_train/000001_pc.npz",
}


def store(folder: Path, classes: tuple[str, ...], *, aligned: bool) -> SceneStore:
    coord = np.random.default_rng(0).random((30, 3), dtype=np.float32)
    scene = Scene(
        "Area_1_hall", coord, np.zeros((30, 3), np.uint8), None, np.zeros(30, np.int16), np.zeros(30, np.int32),
        group="Area_1", aligned=aligned,
    )  # fmt: skip
    write_scenes(folder, [scene], classes=classes, box_classes=(), source="test", settings={})
    return SceneStore(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_written(tmp_path: Path, layout: str) -> None:
    store(tmp_path / "store", S3DIS if "s3dis" in layout else CLASSES_20.classes, aligned=layout == "votenet")
    arguments = ["export", str(tmp_path / "store"), str(tmp_path / "out"), "--layout", layout, "--max-points", "20"]
    done = CliRunner().invoke(datasets, arguments, catch_exceptions=False)
    assert done.output == f"Wrote 1 scenes to {tmp_path / 'out'}\n"
    found = np.load(tmp_path / "out" / FILES[layout])
    assert len(found["pc"] if layout == "votenet_sunrgbd" else found) == (20 if "votenet" in layout else 30)


def test_other_classes_and_full_folders_are_refused(tmp_path: Path) -> None:
    own = store(tmp_path / "store", ("floor", "lamp"), aligned=False)
    for layout in ("pointcept", "pointcept_s3dis", "s3dis_npy"):
        with pytest.raises(DataError, match=r"its 2 classes \(floor, lamp \.\.\.\) are not those of layout"):
            export_scenes(own, tmp_path / "out", layout=layout, max_points=None, seed=0)
    with pytest.raises(DataError, match="is not empty; give another folder"):
        export_scenes(own, tmp_path, layout="pointcept", max_points=None, seed=0)

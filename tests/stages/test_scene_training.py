"""What stages on scenes share: a scene that is a training batch of its own must be large enough."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pointloom.data.scene_batches import SceneLoader
from pointloom.data.scene_store import SceneStore, write_scenes
from pointloom.data.scenes import Scene
from pointloom.errors import DataError
from pointloom.models import build_scene_encoder
from pointloom.stages.params import SceneSamplingParams
from pointloom.stages.scene_training import as_scene_sampling, check_lone_scene
from pointloom.structures import SceneEncoder, as_module

SAMPLING = SceneSamplingParams(voxel_size=0.01, max_points=None, block="none", augmentation="none")


def flat(name: str, num: int) -> Scene:
    """As many points as voxels."""
    place = np.arange(num)
    coord = np.column_stack([place % 32, place // 32, np.zeros(num)]) * 0.01 + 0.005
    return Scene(name, coord.astype(np.float32), None, None, np.zeros(num, np.int16), np.zeros(num, np.int32))


@pytest.fixture
def store(tmp_path: Path) -> SceneStore:
    scenes = [flat("large", 128), flat("small", 127)]
    write_scenes(tmp_path / "data", scenes, classes=("floor",), box_classes=(), source="test", settings={})
    return SceneStore(tmp_path / "data")


def trains(encoder: SceneEncoder, store: SceneStore, row: int) -> bool:
    """Whether the encoder can be trained with a scene as a batch."""
    loader = SceneLoader(store, np.array([row]), sampling=as_scene_sampling(SAMPLING), batch_size=1, seed=0)
    as_module(encoder).train()
    try:
        with torch.no_grad():
            encoder(next(loader.batches(0)))
    except ValueError:
        return False
    return True


def test_lone_scenes_are_refused_exactly_where_training_would_stop(store: SceneStore) -> None:
    tiny = build_scene_encoder("point_transformer_tiny")
    rows = np.arange(2)
    for row, fits in ((0, True), (1, False)):
        assert trains(tiny, store, row) is fits
    check_lone_scene(tiny, store, rows[:1], SAMPLING, batch_size=1, where="finetune")
    check_lone_scene(tiny, store, rows, SAMPLING, batch_size=2, where="finetune")
    with pytest.raises(DataError, match=r"finetune: .*sees 127 voxels of small; Point Transformer needs 128"):
        check_lone_scene(tiny, store, rows, SAMPLING, batch_size=1, where="finetune")
    with pytest.raises(DataError, match=r"pretrain: .*sees 64 voxels of large"):
        check_lone_scene(tiny, store, rows[:1], SAMPLING, batch_size=1, where="pretrain", share=0.5)
    few = SAMPLING.model_copy(update={"max_points": 100})
    with pytest.raises(DataError, match="sees 100 voxels of large"):
        check_lone_scene(tiny, store, rows[:1], few, batch_size=1, where="finetune")

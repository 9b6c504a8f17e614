"""Scores of rooms against hand-computed cases and scikit-learn; blocks are what the protocol says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, jaccard_score

from pointloom.data.scene_store import SceneStore, write_scenes
from pointloom.data.scenes import Scene
from pointloom.errors import DataError
from pointloom.models import build_encoder
from pointloom.tasks.room_blocks import BlockLoader, BlockSampling
from pointloom.tasks.semantic_segmentation import SemanticSegmentation, confusion_counts, semantic_scores

CLASSES = ("floor", "wall", "lamp")


def test_scores_of_a_hand_computed_case() -> None:
    found = semantic_scores(np.array([[6, 2, 0], [1, 1, 0], [0, 0, 0]]))
    assert found.oa == pytest.approx(70.0)
    assert found.macc == pytest.approx(100 * (6 / 8 + 1 / 2) / 2)
    assert found.miou == pytest.approx(100 * (6 / 9 + 1 / 4) / 2)
    assert np.isnan(found.iou[2])


def test_scores_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    true, given = rng.integers(0, 5, 400), rng.integers(0, 5, 400)
    found = semantic_scores(confusion_matrix(true, given))
    assert found.miou == pytest.approx(100 * jaccard_score(true, given, average="macro"))
    assert found.macc == pytest.approx(100 * balanced_accuracy_score(true, given))


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="no point to score"):
        semantic_scores(np.zeros((3, 3), dtype=np.int64))


def write_store(folder: Path) -> SceneStore:
    """Two rooms of 3 x 2 m in areas 1 and 5: a floor and a wall; the one of area 1 has twice as many points."""
    rng = np.random.default_rng(0)
    rooms = []
    for area, num in ((1, 2000), (5, 1000)):
        floor = rng.uniform((0, 0, 0), (3, 2, 0.05), (num, 3))
        wall = rng.uniform((0, 0, 0.2), (3, 0.1, 2.5), (num // 4, 3))
        coord = np.concatenate([floor, wall]).astype(np.float32)
        label = np.repeat([0, 1], [num, num // 4]).astype(np.int16)
        rooms.append(Scene(f"Area_{area}_office_1", coord, None, None, label, np.full(len(coord), -1, np.int32),
                           group=f"Area_{area}"))  # fmt: skip
    write_scenes(folder, rooms, classes=CLASSES, box_classes=(), source="test", settings={})
    return SceneStore(folder)


def sampling(**changed: float) -> BlockSampling:
    values = {"num_points": 128, "size": 1.0, "min_points": 64, "scale": (0.8, 1.25), "shift": 0.1} | changed
    return BlockSampling(**values)  # type: ignore[arg-type]


def test_blocks_are_columns_of_a_metre_with_their_labels(tmp_path: Path) -> None:
    loader = BlockLoader(write_store(tmp_path / "rooms"), [1, 5], sampling=sampling(), batch_size=8, seed=0)
    heights = []
    for batch in loader.draw(1):
        assert batch.coord.shape[1:] == (128, 3)
        assert batch.coord[..., :2].abs().max() <= 0.5 + 1e-5
        assert torch.equal(batch.segment, (batch.coord[..., 2] > 0.1).long())
        heights.append(batch.coord[..., 2].max())
    assert max(heights) > 2.0


def test_share_of_a_room_is_that_of_its_points(tmp_path: Path) -> None:
    loader = BlockLoader(write_store(tmp_path / "rooms"), [1, 5], sampling=sampling(), batch_size=8, seed=0)
    assert np.bincount(loader.room_of).tolist() == [19, 10]  # 3,750 points fill 29 blocks
    assert len(loader) == 3


def test_class_weights_are_cube_roots_of_frequencies(tmp_path: Path) -> None:
    loader = BlockLoader(write_store(tmp_path / "rooms"), [1], sampling=sampling(), batch_size=8, seed=0)
    assert loader.class_weights() == pytest.approx([1.0, 4 ** (1 / 3), 0.0])


def test_block_with_few_points_repeats_them(tmp_path: Path) -> None:
    store = write_store(tmp_path / "rooms")
    thin = BlockLoader(store, [5], sampling=sampling(size=0.1, min_points=10_000), batch_size=4, seed=0)
    batch = next(thin.draw(1))
    assert batch.coord.shape[1] == 128
    assert len(batch.coord[0].unique(dim=0)) < 128


def test_batches_are_a_function_of_seed_epoch_and_step(tmp_path: Path) -> None:
    loader = BlockLoader(write_store(tmp_path / "rooms"), [1, 5], sampling=sampling(), batch_size=8, seed=0)
    whole = list(loader.batches(2))
    (rest,) = list(loader.batches(2, first_step=2))
    assert torch.equal(whole[2].coord, rest.coord)
    assert torch.equal(whole[2].segment, rest.segment)


def test_area_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no rooms of areas 6; there are Area_1, Area_5"):
        BlockLoader(write_store(tmp_path / "rooms"), [6], sampling=sampling(), batch_size=8, seed=0)


def test_frozen_encoder_leaves_the_head_to_train() -> None:
    encoder = build_encoder("point_mae_tiny", num_groups=8, group_size=8)
    task = SemanticSegmentation(encoder, num_classes=3, class_weight=None, freeze_encoder=True)
    trained = {name for name, parameter in task.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in task.named_parameters() if name.startswith("segmenter.head.")}


@pytest.mark.slow
def test_segmentation_learns_floors_and_walls_and_counts_every_point(tmp_path: Path) -> None:
    store = write_store(tmp_path / "rooms")
    train = BlockLoader(store, [1], sampling=sampling(scale=(1.0, 1.0), shift=0.0), batch_size=4, seed=0)  # type: ignore[arg-type]
    test = BlockLoader(store, [5], sampling=sampling(), batch_size=4, seed=0)
    task = SemanticSegmentation(
        build_encoder("point_mae_tiny", num_groups=8, group_size=8, drop_path=0.0),
        num_classes=3, class_weight=torch.from_numpy(train.class_weights()), freeze_encoder=False,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
    for epoch in range(12):
        for batch in train.batches(epoch):
            optimizer.zero_grad()
            task(batch)["loss"].backward()
            optimizer.step()
    counts = confusion_counts(task, test.draw(1), num_classes=3, device=torch.device("cpu"), precision="fp32")
    assert counts.sum() == len(test.room_of) * 128
    assert semantic_scores(counts).oa > 85

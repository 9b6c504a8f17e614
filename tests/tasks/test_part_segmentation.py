"""Mean IoUs of parts against hand-computed cases and scikit-learn; parts of points stay with their points."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from pointloom.data.part_clouds import PartBatch, PartLoader, PartSampling, part_counts
from pointloom.data.records import NO_PART, ObjectPoints, ObjectRecord
from pointloom.data.shards import ObjectStore, write_store
from pointloom.errors import DataError
from pointloom.models import build_encoder
from pointloom.tasks.part_segmentation import (
    PartSegmentation,
    evaluate_shapes,
    part_ranges,
    part_scores,
    restricted_prediction,
    shape_iou,
)

PARTS = (2, 3)


def test_ids_count_through_the_categories() -> None:
    assert part_ranges(PARTS).tolist() == [[0, 2], [2, 5]]


def test_only_parts_of_the_own_category_are_predicted() -> None:
    logits = np.array([[[1.0, 2, 9, 8, 7]], [[9, 8, 1, 3, 2]]])
    assert restricted_prediction(logits, np.array([0, 1]), parts=PARTS).tolist() == [[1], [3]]


def test_iou_of_a_hand_computed_case() -> None:
    segment = np.array([[0, 0, 1, 1], [2, 2, 2, 3]])
    prediction = np.array([[0, 1, 1, 1], [2, 2, 2, 2]])
    found = shape_iou(prediction, segment, np.array([0, 1]), parts=PARTS)
    assert found == pytest.approx([(1 / 2 + 2 / 3) / 2, (3 / 4 + 0 + 1) / 3])  # part 4 is nowhere: 1


def test_iou_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    segment, prediction = rng.integers(2, 5, (6, 40)), rng.integers(2, 5, (6, 40))
    found = shape_iou(prediction, segment, np.ones(6, dtype=np.int64), parts=PARTS)
    expected = [
        jaccard_score(s, p, labels=[2, 3, 4], average="macro") for s, p in zip(segment, prediction, strict=True)
    ]
    assert found == pytest.approx(expected)


def test_part_of_another_category_is_an_error() -> None:
    with pytest.raises(ValueError, match="its category does not have"):
        shape_iou(np.zeros((1, 1), np.int64), np.array([[2]]), np.array([0]), parts=PARTS)


def test_instance_mean_counts_shapes_and_class_mean_counts_categories() -> None:
    found = part_scores(np.array([0.9, 0.7, 0.2]), np.array([1.0, 0.5, 0.0]), np.array([3, 3, 5]))
    assert found.miou_instance == pytest.approx(60.0)
    assert found.miou_class == pytest.approx((80 + 20) / 2)
    assert found.oa == pytest.approx(50.0)
    assert found.categories == pytest.approx({3: 80.0, 5: 20.0})


def write_clouds(folder: Path, *, with_parts: bool = True, num_points: int = 60, fill: int = 10) -> ObjectStore:
    """Boxes cut at z = 0: part 1 above, part 0 below, of two categories; some points are without a label."""
    rng = np.random.default_rng(0)
    objects = []
    for i in range(8):
        coord = rng.uniform(-1, 1, (num_points, 3)).astype(np.float32)
        segment = (coord[:, 2] > 0).astype(np.uint8)
        segment[num_points - fill :] = NO_PART
        record = ObjectRecord(
            uid=f"o{i}", path=f"o{i}", name="o", category="ab"[i % 2], group=f"o{i}", up_axis="z",
            split="train" if i < 6 else "test", transform=tuple(np.eye(4).ravel().tolist()), sha256=f"{i}", num_faces=0,
        )  # fmt: skip
        points = ObjectPoints(
            coord=coord, normal=np.zeros_like(coord), color=np.zeros((num_points, 3), np.uint8),
            segment=segment if with_parts else None,
        )  # fmt: skip
        objects.append((record, points))
    parts = {"a": ["low", "high"], "b": ["low", "high", "none"]} if with_parts else None
    write_store(folder, objects, num_points=num_points, source="test", settings={}, parts=parts)
    return ObjectStore(folder)


def sampling(*, num_points: int = 32, replacement: bool = True) -> PartSampling:
    return PartSampling(num_points=num_points, replacement=replacement, scale=(0.8, 1.25), shift=0.1)


def loader(store: ObjectStore, split: str = "train", **changed: int | bool) -> PartLoader:
    return PartLoader(store, store.rows(split), sampling=sampling(**changed), batch_size=4, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("replacement", [True, False])
def test_part_of_every_drawn_point_is_its_own(tmp_path: Path, replacement: bool) -> None:
    store = write_clouds(tmp_path / "store")
    for batch in loader(store, replacement=replacement).draw(1):
        for coord, label, segment, row in zip(batch.coord, batch.label, batch.segment, batch.row, strict=True):
            original = store.coords(row[None].numpy())[0][:50]
            center = original.mean(0)
            radius = np.linalg.norm(original - center, axis=1).max()
            back = coord.numpy() * radius + center
            distance = np.linalg.norm(back[:, None] - original, axis=-1)
            assert distance.min(1).max() < 1e-5
            known = store.segments(row[None].numpy())[0][distance.argmin(1)]
            assert np.array_equal(segment.numpy(), known + (2 if label == 1 else 0))
            if not replacement:
                assert len(set(distance.argmin(1).tolist())) == 32


def test_batches_are_a_function_of_seed_epoch_and_step(tmp_path: Path) -> None:
    clouds = loader(write_clouds(tmp_path / "store"))
    (first,), (again,) = list(clouds.batches(3)), list(clouds.batches(3))
    (other,) = list(clouds.batches(4))
    assert torch.equal(first.coord, again.coord)
    assert torch.equal(first.segment, again.segment)
    assert not torch.equal(first.coord, other.coord)


def test_scale_is_the_same_for_all_axes(tmp_path: Path) -> None:
    store = write_clouds(tmp_path / "store", num_points=40, fill=8)
    still = PartSampling(num_points=32, replacement=False, scale=(0.5, 0.5), shift=0.0)
    for batch in PartLoader(store, store.rows("train"), sampling=still, batch_size=4, seed=0).batches(0):
        assert torch.allclose(batch.coord.norm(dim=-1).amax(1), torch.full((4,), 0.5), atol=1e-5)


def test_store_without_parts_is_a_clear_error(tmp_path: Path) -> None:
    store = write_clouds(tmp_path / "store", with_parts=False)
    with pytest.raises(DataError, match="needs part labels for every class, and there are none for a, b"):
        part_counts(store)


def test_too_few_labelled_points_are_a_clear_error(tmp_path: Path) -> None:
    store = write_clouds(tmp_path / "store")
    with pytest.raises(DataError, match="has 50 points with a part label, 55 are to be drawn"):
        loader(store, num_points=55, replacement=False)
    with pytest.raises(DataError, match="has 0 points with a part label"):
        loader(write_clouds(tmp_path / "empty", fill=60))


@pytest.mark.slow
def test_segmentation_learns_to_cut_boxes(tmp_path: Path) -> None:
    store = write_clouds(tmp_path / "store")
    encoder = build_encoder("point_mae_tiny", num_groups=8, group_size=8, drop_path=0.0)
    task = PartSegmentation(encoder, parts=part_counts(store))
    train, optimizer = loader(store), torch.optim.AdamW(task.parameters(), lr=1e-3)
    losses = []
    for epoch in range(25):
        for batch in train.batches(epoch):
            loss = task(batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    iou, right = evaluate_shapes(
        task, loader(store, "test").draw(1), parts=(2, 3), device=torch.device("cpu"), precision="fp32"
    )
    assert iou.shape == right.shape == (2,)
    assert right.mean() > 0.8
    assert task.training


def test_batch_moves_as_a_whole() -> None:
    batch = PartBatch(
        coord=torch.zeros(1, 4, 3), label=torch.zeros(1, dtype=torch.long), row=torch.zeros(1, dtype=torch.long),
        segment=torch.zeros(1, 4, dtype=torch.long),
    )  # fmt: skip
    moved = batch.to(torch.device("meta"))
    assert {value.device.type for value in (moved.coord, moved.label, moved.segment, moved.row)} == {"meta"}

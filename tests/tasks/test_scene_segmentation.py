"""Segmentation of scenes: scores by hand, both protocols against a plain network, frozen encoders, learning."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.data.scene_batches import pack
from pointloom.data.scene_transforms import ScenePoints, grid_sample
from pointloom.models.point_transformer import PointTransformer, point_transformer
from pointloom.ops.lovasz import lovasz_softmax
from pointloom.structures import SceneBatch, SceneLevel
from pointloom.tasks.scene_evaluation import VIEWS, Evaluation, View, changed, label_scene
from pointloom.tasks.scene_segmentation import SceneSegmentation, count_confusion, scene_scores
from pointloom.train.optim import build_optimizer

OPTIONS: dict[str, Any] = {
    "num_classes": 3, "class_weight": None, "freeze_encoder": False, "features": "finest", "head": "mlp",
    "lovasz_weight": 0.0,
}  # fmt: skip


def room(num: int, seed: int = 0) -> ScenePoints:
    """A floor, a wall and a box between them."""
    rng = np.random.default_rng(seed)
    coord, segment = rng.random((num, 3)).astype(np.float32) * 2, rng.integers(0, 3, num)
    coord[segment == 0, 2] = 0
    coord[segment == 1, 0] = 0
    coord[segment == 2] = 0.8 + 0.2 * coord[segment == 2]
    color = rng.random((num, 3)).astype(np.float32)
    return ScenePoints(coord, color, np.zeros_like(coord), segment, np.full(num, -1))


def encoder() -> PointTransformer:
    return PointTransformer(
        dims=(8, 16), depths=(1, 1), strides=(4,), num_neighbors=(4, 4), attention_norm="batch", voxel_size=0.1
    )


def test_published_network_with_its_head_has_the_published_size() -> None:
    task = SceneSegmentation(point_transformer(), **(OPTIONS | {"num_classes": 13}))
    assert sum(parameter.numel() for parameter in task.parameters()) == 7_767_729


def test_scores_by_hand() -> None:
    # Class 0: 3 of 4 right, one taken for class 1; class 1: 1 of 1; class 2 occurs nowhere, class 3 is only predicted.
    confusion = count_confusion(np.array([0, 0, 0, 0, 1, -1, 0]), np.array([0, 0, 0, 1, 1, 2, 3]), 4)
    assert confusion.tolist() == [[3, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    scores = scene_scores(confusion)
    assert scores.miou == pytest.approx(100 * (3 / 5 + 1 / 2) / 4)
    assert scores.miou_present == pytest.approx(100 * (3 / 5 + 1 / 2) / 2)
    assert scores.macc == pytest.approx(100 * (3 / 5 + 1) / 4)
    assert scores.oa == pytest.approx(100 * 4 / 6)
    assert np.isnan(scores.iou[2:]).all()
    with pytest.raises(ValueError, match="no labelled point"):
        scene_scores(np.zeros((2, 2), dtype=np.int64))


def test_lovasz_loss_of_certain_predictions_is_one_minus_the_mean_iou() -> None:
    label, prediction = torch.tensor([0, 0, 0, 2, 2, 2, 2]), torch.tensor([0, 0, 2, 2, 1, 2, 2])
    loss = lovasz_softmax(F.one_hot(prediction, 3).float(), label)
    assert loss.item() == pytest.approx(1 - (2 / 3 + 3 / 5) / 2)
    logits = torch.randn(7, 3, requires_grad=True)
    lovasz_softmax(logits.softmax(1), label).backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0
    assert lovasz_softmax(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)) == 0


def test_loss_counts_labelled_points_with_their_weights() -> None:
    weight = torch.tensor([1.0, 2.0, 0.5])
    task = SceneSegmentation(encoder(), **(OPTIONS | {"class_weight": weight, "head": "linear"})).eval()
    batch = pack([room(60), room(50, 1)], [0, 1])
    batch.segment[::3] = -1
    losses = task(batch)
    with torch.no_grad():
        logits = task.predict(batch)
    expected = F.cross_entropy(logits, batch.segment, weight=weight, ignore_index=-1)
    torch.testing.assert_close(losses["loss"], expected)
    known = batch.segment >= 0
    right = (logits.argmax(1)[known] == batch.segment[known]).float().mean()
    torch.testing.assert_close(losses["train_oa"], 100 * right)
    batch.segment.fill_(-1)
    assert task(batch)["loss"] == 0


def test_frozen_encoder_keeps_weights_and_batch_statistics() -> None:
    task = SceneSegmentation(encoder(), **(OPTIONS | {"freeze_encoder": True, "features": "all"}))
    before = {name: value.clone() for name, value in task.encoder.state_dict().items()}  # type: ignore[attr-defined]
    optimizer = build_optimizer(task.train(), lr=0.1, weight_decay=0.1, beta2=0.99)
    for _ in range(2):
        task(pack([room(60)], [0]))["loss"].backward()
        optimizer.step()
    after = task.encoder.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(parameter.grad is not None for parameter in task.head.parameters())


@pytest.mark.parametrize("lovasz_weight", [0.0, 1.0])
def test_it_learns_a_room(lovasz_weight: float) -> None:
    task = SceneSegmentation(encoder(), **(OPTIONS | {"lovasz_weight": lovasz_weight}))
    points = room(200)
    batch, optimizer = pack([points], [0]), build_optimizer(task, lr=0.02, weight_decay=0.0, beta2=0.99)
    for _ in range(25):
        losses = task(batch)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses["train_oa"] > 97
    assert [name for name, parameter in task.named_parameters() if not parameter.requires_grad] == []


class _Told(nn.Module):
    """An encoder whose feature is where a point is: every prediction can be worked out."""

    dims = (3,)
    voxel_size = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []

    def forward(self, scenes: SceneBatch) -> list[SceneLevel]:
        self.seen.append(scenes.coord.numpy().copy())
        return [SceneLevel(scenes.coord, scenes.coord - scenes.coord.mean(0), scenes.offset)]

    def spread(self, levels: list[SceneLevel], coord: Tensor, offset: Tensor) -> Tensor:
        raise AssertionError("the features lie on the points already")


def _told() -> tuple[SceneSegmentation, _Told]:
    told = _Told()
    task = SceneSegmentation(told, **(OPTIONS | {"head": "linear"})).eval()
    return task, told


def _how(**changed: Any) -> Evaluation:
    values = {"protocol": "precise", "tta": "none", "voxel_size": 0.5, "device": torch.device("cpu")}
    return Evaluation(**(values | {"precision": "fp32"} | changed))


def test_one_point_of_a_voxel_speaks_for_all() -> None:
    task, told = _told()
    points = room(300)
    label = label_scene(task, points, _how(protocol="in_training"))
    (seen,) = told.seen
    _, inverse = grid_sample(points.coord, 0.5, None)
    assert len(seen) == inverse.max() + 1 < 300
    assert all(len(set(label[inverse == voxel])) == 1 for voxel in range(inverse.max() + 1))
    own = {tuple(row) for row in seen}
    speakers = [i for i, coord in enumerate(points.coord) if tuple(coord) in own]
    with torch.no_grad():
        expected = task.head(torch.from_numpy(points.coord[speakers] - seen.mean(0))).argmax(1).numpy()
    assert np.array_equal(label[speakers], expected)


def test_precise_protocol_sees_every_point_and_adds_up_probabilities() -> None:
    task, told = _told()
    points = room(300)
    with torch.no_grad():
        task.head[0].weight.mul_(20)  # certain enough that parts disagree
    label = label_scene(task, points, _how())
    counts = np.zeros(300)
    total, last = torch.zeros(300, 3), torch.zeros(300, 3)
    rows = {tuple(coord): i for i, coord in enumerate(points.coord)}
    for part in told.seen:
        index = [rows[tuple(coord)] for coord in part]
        assert len(set(index)) == len(index)
        counts[index] += 1
        with torch.no_grad():
            last[index] = task.head(torch.from_numpy(part - part.mean(0))).softmax(1)
            total[index] += last[index]
    assert counts.min() >= 1
    assert np.array_equal(label, total.argmax(1).numpy())
    assert not np.array_equal(label, last.argmax(1).numpy())  # the sum decides, not the last part


def test_augmentation_at_test_time_adds_up_all_views() -> None:
    task, told = _told()
    points = room(40)
    plain = len(told.seen)
    with torch.no_grad():
        task.head[0].weight.mul_(20)
    label = label_scene(task, points, _how(tta="s3dis", voxel_size=1e-3))  # so small that every view is one part
    assert len(told.seen) - plain == len(VIEWS["s3dis"]) == 10
    views = [torch.from_numpy(changed(points, view).coord) for view in VIEWS["s3dis"]]
    with torch.no_grad():
        total = torch.stack([task.head(coord - coord.mean(0)).softmax(1) for coord in views]).sum(0)
    assert np.array_equal(label, total.argmax(1).numpy())
    assert len(VIEWS["scannet"]) == 13
    turned = changed(points, View(degrees=90.0, scale=2.0, flip=True))
    # A quarter turn brings x to y and y to -x; the mirror turns both round.
    expected = np.stack([points.coord[:, 1], -points.coord[:, 0], points.coord[:, 2]], axis=1) * 2
    np.testing.assert_allclose(turned.coord, expected, atol=1e-5)

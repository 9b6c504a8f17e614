"""Boxes against Shapely, brute force and hand-computed cases."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from shapely import Point, Polygon, box
from shapely.affinity import rotate, translate
from torch import Tensor

from pointloom.ops import (
    axis_aligned,
    box_corners,
    box_iou,
    box_nms,
    count_points_in_boxes,
    generalized_box_iou,
    points_in_boxes,
)
from pointloom.ops import boxes as boxes_module


def random_boxes(num: int, *, seed: int, turned: bool = True) -> Tensor:
    """Boxes of 0.2 to 3 m within 2 m of the origin, in double precision."""
    rng = np.random.default_rng(seed)
    heading = rng.uniform(-7, 7, num) if turned else np.zeros(num)
    return torch.from_numpy(np.c_[rng.uniform(-2, 2, (num, 3)), rng.uniform(0.2, 3, (num, 3)), heading])


def footprint(row: NDArray[np.float64]) -> Polygon:
    x, y, _, length, width, _, heading = row
    flat = box(-length / 2, -width / 2, length / 2, width / 2)
    return translate(rotate(flat, heading, origin=(0, 0), use_radians=True), x, y)


def shapely_iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    height = min(first[2] + first[5] / 2, second[2] + second[5] / 2)
    height -= max(first[2] - first[5] / 2, second[2] - second[5] / 2)
    shared = footprint(first).intersection(footprint(second)).area * max(height, 0.0)
    return float(shared / (first[3:6].prod() + second[3:6].prod() - shared))


def assert_equals_shapely(first: Tensor, second: Tensor, *, atol: float) -> None:
    wanted = [[shapely_iou(a, b) for b in second.double().numpy()] for a in first.double().numpy()]
    found = box_iou(first, second).double()
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), atol=atol, rtol=0)


def test_iou_of_oriented_boxes_equals_shapely() -> None:
    first, second = random_boxes(40, seed=0), random_boxes(30, seed=1)
    assert_equals_shapely(first, second, atol=1e-12)
    assert_equals_shapely(first.float(), second.float(), atol=2e-6)


def test_iou_far_from_the_origin_equals_shapely() -> None:
    shift = torch.tensor([500.0, -300.0, 20.0, 0, 0, 0, 0], dtype=torch.float64)
    assert_equals_shapely(random_boxes(10, seed=2) + shift, random_boxes(10, seed=3) + shift, atol=1e-10)


@pytest.mark.parametrize("heading", [0.0, 0.3, np.pi / 4, np.pi / 2, np.pi, -np.pi / 2, 2 * np.pi])
def test_edges_on_top_of_each_other_equal_shapely(heading: float) -> None:
    """The same box, one inside sharing faces, one beside it, one above it, one turned by a right angle."""
    around = [[0, 0, 0, 2, 1, 1, 0], [0.5, 0, 0, 1, 1, 1, 0], [2, 0, 0, 2, 1, 1, 0], [0, 0, 1, 2, 1, 1, 0]]
    around += [[0, 0, 0, 1, 2, 1, np.pi / 2], [0, 0, 0, 2, 1, 1, np.pi], [1, 0.5, 0, 2, 1, 1, 0]]
    rows = torch.tensor(around, dtype=torch.float64)
    cos, sin = np.cos(heading), np.sin(heading)
    x, y = rows[:, 0].clone(), rows[:, 1].clone()
    rows[:, 0], rows[:, 1], rows[:, 6] = x * cos - y * sin, x * sin + y * cos, rows[:, 6] + heading
    assert_equals_shapely(rows, rows, atol=1e-9)
    assert_equals_shapely(rows.float(), rows.float(), atol=1e-5)


def test_boxes_without_size_overlap_nothing() -> None:
    empty = torch.tensor([[0, 0, 0, 0, 0, 0, 0.4], [0, 0, 0, 0, 1, 1, 0.4]])
    whole = torch.tensor([[0.0, 0, 0, 1, 1, 1, 0]])
    assert box_iou(empty, torch.cat([empty, whole])).abs().max() < 1e-6
    assert torch.isfinite(generalized_box_iou(empty, empty, oriented=True)).all()


def test_boxes_apart_have_exactly_no_overlap() -> None:
    first, second = random_boxes(20, seed=4).float(), random_boxes(20, seed=5).float()
    second[:, 0] += 10
    assert (box_iou(first, second) == 0).all()


def test_swapping_the_boxes_transposes_the_result() -> None:
    first, second = random_boxes(15, seed=6), random_boxes(12, seed=7)
    torch.testing.assert_close(box_iou(first, second), box_iou(second, first).T)


def test_batches_are_compared_scene_by_scene() -> None:
    first, second = random_boxes(12, seed=8).view(2, 6, 7), random_boxes(8, seed=9).view(2, 4, 7)
    alone = torch.stack([box_iou(a, b) for a, b in zip(first, second, strict=True)])
    torch.testing.assert_close(box_iou(first, second), alone)
    assert box_iou(first, second[:, :0]).shape == (2, 6, 0)


def test_axis_aligned_box_encloses_the_corners() -> None:
    rows = random_boxes(20, seed=10)
    corners, hull = box_corners(rows), axis_aligned(rows)
    torch.testing.assert_close(hull[:, :3] + hull[:, 3:6] / 2, corners.amax(1))
    torch.testing.assert_close(hull[:, :3] - hull[:, 3:6] / 2, corners.amin(1))
    assert (hull[:, 6] == 0).all()


def test_corners_of_a_turned_box() -> None:
    corners = box_corners(torch.tensor([[1.0, 2, 3, 4, 2, 6, np.pi / 2]]))[0]
    wanted = [(0, 4, 0), (0, 0, 0), (2, 0, 0), (2, 4, 0)]
    torch.testing.assert_close(corners[:4], torch.tensor(wanted).float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(corners[4:] - corners[:4], torch.tensor([0.0, 0, 6]).expand(4, 3))


@pytest.mark.parametrize("oriented", [True, False])
def test_generalized_iou_equals_its_definition(oriented: bool) -> None:
    first, second = random_boxes(12, seed=11), random_boxes(10, seed=12)
    found = generalized_box_iou(first, second, oriented=oriented)
    for i, a in enumerate(first if oriented else axis_aligned(first)):
        for j, b in enumerate(second if oriented else axis_aligned(second)):
            iou = shapely_iou(a.numpy(), b.numpy())
            shared = iou / (1 + iou) * float(a[3:6].prod() + b[3:6].prod())
            union = float(a[3:6].prod() + b[3:6].prod()) - shared
            corners = box_corners(torch.stack([a, b])).flatten(0, 1)
            enclosing = float((corners.amax(0) - corners.amin(0)).prod())
            assert float(found[i, j]) == pytest.approx(iou - (enclosing - union) / enclosing, abs=1e-9)


def test_generalized_iou_of_axis_aligned_boxes_has_the_right_gradient() -> None:
    first, second = random_boxes(4, seed=13, turned=False)[:, :6], random_boxes(3, seed=14, turned=False)
    upright = torch.zeros(4, 1, dtype=torch.float64)

    def score(rows: Tensor) -> Tensor:
        return generalized_box_iou(torch.cat([rows, upright], dim=1), second, oriented=False)

    assert torch.autograd.gradcheck(score, first.requires_grad_())


def test_climbing_generalized_iou_brings_distant_boxes_together() -> None:
    target = torch.tensor([[2.0, 0, 0, 1, 1, 1, 0]])
    moving = torch.tensor([[0.0, 0, 0, 1, 1, 1, 0]], requires_grad=True)
    for _ in range(60):
        (gradient,) = torch.autograd.grad(generalized_box_iou(moving, target, oriented=False).sum(), moving)
        moving = (moving + 0.1 * gradient).detach().requires_grad_()
    assert box_iou(moving.detach(), target).item() > 0.3


def greedy(rows: Tensor, score: Tensor, label: Tensor, candidate: Tensor, threshold: float) -> list[int]:
    """Non-maximum suppression as everybody writes it down."""
    kept: list[int] = []
    for i in score.argsort(descending=True, stable=True).tolist():
        overlap = [box_iou(rows[i : i + 1], rows[j : j + 1], oriented=False).item() for j in kept]
        rivals = [o > threshold and label[i] == label[j] for o, j in zip(overlap, kept, strict=True)]
        if candidate[i] and not any(rivals):
            kept.append(i)
    return sorted(kept)


def test_suppression_equals_the_greedy_loop() -> None:
    rows = torch.cat([random_boxes(30, seed=s).float() for s in (15, 16)]).view(2, 30, 7)
    score, label = torch.rand(2, 30), torch.randint(0, 2, (2, 30))
    score[:, ::5] = 0.5
    candidate = torch.rand(2, 30) > 0.2
    keep = box_nms(rows, score, label, candidate, threshold=0.1)
    for scene in range(2):
        wanted = greedy(rows[scene], score[scene], label[scene], candidate[scene], 0.1)
        assert keep[scene].nonzero().flatten().tolist() == wanted
    assert 0 < int(keep.sum()) < int(candidate.sum())


def test_a_suppressed_box_suppresses_nothing() -> None:
    rows = torch.tensor([[0, 0, 0, 1, 1, 1, 0], [0.4, 0, 0, 1, 1, 1, 0], [0.8, 0, 0, 1, 1, 1, 0]])
    same, all_of_them = torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=torch.bool)
    keep = box_nms(rows, torch.tensor([0.9, 0.8, 0.7]), same, all_of_them, threshold=0.25)
    assert keep.tolist() == [True, False, True]


def test_points_in_boxes_equal_shapely() -> None:
    rows = random_boxes(10, seed=17)
    coord = torch.from_numpy(np.random.default_rng(18).uniform(-2, 2, (200, 3)))
    inside = points_in_boxes(coord, rows)
    x, y, z = coord.unbind(-1)
    for j, row in enumerate(rows.numpy()):
        flat = footprint(row)
        wanted = [flat.covers(Point(each)) for each in zip(x.tolist(), y.tolist(), strict=True)]
        high = (z - row[2]).abs() <= row[5] / 2
        assert torch.equal(inside[:, j], torch.tensor(wanted) & high)


def test_counting_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, coord = random_boxes(14, seed=19).view(2, 7, 7), torch.rand(2, 50, 3, dtype=torch.float64)
    wanted = points_in_boxes(coord, rows).sum(-2)
    monkeypatch.setattr(boxes_module, "_MAX_PAIRS", 250)
    assert torch.equal(count_points_in_boxes(coord, rows), wanted)
    assert int(wanted.max()) > 0

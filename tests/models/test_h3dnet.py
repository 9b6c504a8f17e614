"""H3DNet: size, faces and edges of boxes, who belongs to which of them, labels of matches, and that it learns."""

import math

import pytest
import torch
from torch import Tensor

from pointloom.models.box_parts import edge_centers, face_centers, part_targets
from pointloom.models.h3dnet import H3dNet
from pointloom.models.h3dnet_loss import Matches, Parts, match_labels
from pointloom.models.pointnet2 import pointnet2_tiny, pointnet2_votenet
from pointloom.models.seeds import Seeds
from pointloom.ops import box_corners
from pointloom.structures import Detector
from pointloom.tasks.box_matches import match_boxes
from pointloom.tasks.detection import KeepRules, find_boxes
from pointloom.tasks.detection_scores import detection_scores
from tests.tasks.boxed_rooms import SIZES, boxed_batch, boxed_scene

MEAN_SIZES = torch.from_numpy(SIZES).float()


def tiny(*, num_headings: int = 1, num_towers: int = 2) -> H3dNet:
    towers = [pointnet2_tiny(num_seeds=64, width=32) for _ in range(num_towers)]
    return H3dNet(towers, mean_sizes=MEAN_SIZES, num_headings=num_headings, num_proposals=32)


def test_it_has_the_size_that_its_layers_say() -> None:
    """Towers 4 x 641,920, joining 657,664, flags 100,230, votes 4 x 199,171, parts 309,186, boxes 296,966; the paper
    that compares it (MM-3DScene, table 10) says 4.74M (docs/methods/detection.md)."""
    model = H3dNet([pointnet2_votenet() for _ in range(4)], mean_sizes=torch.ones(18, 3), num_headings=1)
    assert sum(p.numel() for p in model.parameters()) == 4_728_410
    assert isinstance(model, Detector)


def test_clusters_may_grow_around_the_first_seeds_when_predicting() -> None:
    batch = boxed_batch(boxed_scene(0))
    towers = [pointnet2_tiny(num_seeds=64, width=32)]
    model = H3dNet(towers, mean_sizes=MEAN_SIZES, num_headings=1, num_proposals=16, test_sampling="seeds")
    for training in (True, False):
        found = model.train(training)._find(batch)
        assert torch.equal(found.initial.place, found.votes[:, :16]) is not training


def test_faces_and_edges_are_means_of_their_corners() -> None:
    boxes = torch.rand(1, 5, 7) * 3 + 0.1
    corners, faces, edges = box_corners(boxes), face_centers(boxes), edge_centers(boxes)
    top, bottom = corners[:, :, 4:], corners[:, :, :4]
    torch.testing.assert_close(faces[:, :, 0], top.mean(2))
    torch.testing.assert_close(faces[:, :, 1], bottom.mean(2))
    sides = [torch.stack([bottom, top]).mean(0)[:, :, [i, (i + 1) % 4]].mean(2) for i in range(4)]
    assert_same_points(faces[:, :, 2:], torch.stack(sides, dim=2))
    around = [(face + face.roll(-1, dims=2)) / 2 for face in (top, bottom)]
    assert_same_points(edges, torch.cat([*around, (top + bottom) / 2], dim=2))


def assert_same_points(first: Tensor, second: Tensor) -> None:
    distance = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
    assert distance.amin(-1).max() < 1e-5
    assert distance.amin(-2).max() < 1e-5


def test_seeds_belong_to_the_nearest_face_and_edge_of_their_box() -> None:
    batch = boxed_batch(boxed_scene(0, num_boxes=4, turned=True), num_points=900, oriented=True)
    index = torch.arange(900)[None]
    seeds = Seeds(batch.coord, torch.zeros(1, 900, 1), index)
    found = part_targets(seeds, batch)
    for kind, target in found.items():
        assert not target.known[~batch.on_object].any()
        assert target.known.any()
        assert target.size.shape[-1] == {"level": 2, "upright": 1, "edge": 0}[kind]
    for i in range(0, 900, 20):
        if not batch.on_object[0, i]:
            continue
        center = batch.coord[0, i] + batch.votes[0, i, 0]
        own = batch.boxes[0, (batch.boxes[0, :, :3] - center).norm(dim=-1).argmin()][None, None]
        cos, sin = math.cos(own[0, 0, 6]), math.sin(own[0, 0, 6])
        x, y, z = (batch.coord[0, i] - own[0, 0, :3]).tolist()
        local, half = (x * cos + y * sin, y * cos - x * sin, z), (own[0, 0, 3:6] / 2).tolist()
        to_face = [abs(half[2] - local[2]), abs(half[2] + local[2]), abs(half[1] - local[1]), abs(half[1] + local[1]),
                   abs(half[0] - local[0]), abs(half[0] + local[0])]  # fmt: skip
        level = min(range(2), key=lambda f: to_face[f])
        assert bool(found["level"].known[0, i]) == (to_face[level] < 0.2)
        torch.testing.assert_close(found["level"].center[0, i], face_centers(own)[0, 0, level])
        upright = min(range(2, 6), key=lambda f: to_face[f])
        torch.testing.assert_close(found["upright"].center[0, i], face_centers(own)[0, 0, upright])
        pairs = [(max(to_face[a], to_face[b])) for a in range(6) for b in range(a) if a // 2 != b // 2]
        assert bool(found["edge"].known[0, i]) == (min(pairs) < 0.2)


def parts_at(place: list[tuple[float, float, float]], label: list[int], exists: list[bool]) -> Parts:
    count = len(place)
    flags = torch.tensor(exists).float()
    return Parts(
        exists=torch.stack([1 - flags, flags], dim=-1)[None],
        vote=torch.zeros(1, count, 3),
        center=torch.tensor([place]),
        size=torch.zeros(1, count, 0),
        category=torch.nn.functional.one_hot(torch.tensor([label]), 2).float(),
        feature=torch.zeros(1, count, 1),
    )


def test_part_counts_if_it_exists_and_is_near_the_true_and_the_predicted_place() -> None:
    """A unit cube is predicted 0.2 m beside the true one; found: its top, its bottom with another class, no side."""
    true_box = torch.tensor([[[0.0, 0, 0, 1, 1, 1, 0]]])
    predicted = true_box + torch.tensor([0.2, 0, 0, 0, 0, 0, 0])
    level = parts_at([(0.1, 0, 0.5), (0.0, 0, -0.5)], [1, 0], [True, True])
    upright = parts_at([(0, 0.5, 0), (-0.25, -0.5, 0.0)], [1, 1], [False, True])  # (0, -.5, 0) is 0.45 from predicted
    edge = parts_at([(0.1, 0.5, 0.5)], [1], [True])
    matches = Matches(
        face_centers(predicted), edge_centers(predicted), torch.zeros(1, 1, 18, 2), torch.zeros(1, 1, 18, 2)
    )
    true = torch.cat([face_centers(true_box), edge_centers(true_box)], dim=2)
    matched, same = match_labels(matches, {"level": level, "upright": upright, "edge": edge}, true, torch.tensor([[1]]))
    assert matched[0, 0, :6].tolist() == [True, True, False, False, False, False]
    assert same[0, 0, :6].tolist() == [True, False, False, False, False, False]
    hit = true[0, 0, 6:] == torch.tensor([0, 0.5, 0.5])
    assert torch.equal(matched[0, 0, 6:], hit.all(-1))
    assert torch.equal(same[0, 0, 6:], hit.all(-1))


@pytest.mark.parametrize("num_headings", [1, 4])
def test_every_parameter_has_a_gradient(num_headings: int) -> None:
    model = tiny(num_headings=num_headings)
    scenes = [boxed_scene(i, turned=num_headings > 1) for i in range(2)]
    losses = model(boxed_batch(*scenes, oriented=num_headings > 1))
    losses["loss"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_scenes_without_objects_have_a_finite_loss() -> None:
    model = tiny()
    losses = model(boxed_batch(boxed_scene(0, num_boxes=0), boxed_scene(2, num_boxes=0)))
    losses["loss"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.slow
def test_it_learns_two_rooms() -> None:
    """More slowly than VoteNet: at first most of its loss is about faces and edges."""
    batch = boxed_batch(*(boxed_scene(i, num_boxes=4) for i in range(2)))
    model = tiny(num_towers=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=200)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = model(batch)["loss"]
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]
    rules = KeepRules(nms_iou=0.25, min_objectness=0.05, min_points=5)
    found, truth = find_boxes(model, [batch], rules=rules, device=torch.device("cpu"), precision="fp32")
    assert detection_scores(match_boxes(found, truth), truth, threshold=0.25).mean_ap > 20

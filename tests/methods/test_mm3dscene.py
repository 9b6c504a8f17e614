"""MM-3DScene: statistic and masks against brute force, losses against plain formulas, sizes, gradients, learning."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch import nn
from torch.nn import functional as F

from pointloom.methods.informative import keep_highest, local_statistic, select
from pointloom.methods.mm3dscene import HeadPlan, MaskPlan, MM3DScene, at_corner
from pointloom.models.coordinate_variation import CoordinateVariation
from pointloom.models.point_transformer import PointTransformer
from pointloom.structures import SceneBatch, SceneLevel, SceneMethod
from pointloom.train.optim import build_optimizer

PLAN: dict[str, Any] = {
    "mask": "preserved", "cues": "both", "num_neighbors": 8, "difference": "squared", "normalisation": "scene",
    "keep": (0.3, 0.8), "gap": 0.1, "progressive": True,
}  # fmt: skip
HEAD: dict[str, Any] = {"hidden": 16, "grid": (2, 2), "extent": 1.0, "reads_coord": True}
METHOD: dict[str, Any] = {
    "reconstruction_weight": 1.0, "consistency_weight": 1.0, "chamfer": "mean", "cd_reduction": "mean",
    "temperature": 0.07, "max_samples": 64, "momentum": 0.9,
}  # fmt: skip


def scenes(*sizes: int) -> SceneBatch:
    total = sum(sizes)
    return SceneBatch(
        coord=torch.rand(total, 3) * torch.tensor([3.0, 4.0, 2.5]) - 1,
        color=torch.rand(total, 3),
        normal=torch.zeros(total, 3),
        offset=torch.tensor(sizes).cumsum(0),
        segment=torch.arange(total),
        instance=torch.zeros(total, dtype=torch.long),
        row=torch.arange(len(sizes)),
    )


def encoder() -> PointTransformer:
    return PointTransformer(
        dims=(8, 16), depths=(1, 1), strides=(4,), num_neighbors=(4, 4), attention_norm="batch", voxel_size=0.1
    )


def method(plan: dict[str, Any] | None = None, **changed: Any) -> MM3DScene:
    return MM3DScene(encoder(), plan=MaskPlan(**(PLAN | (plan or {}))), head=HeadPlan(**HEAD), **(METHOD | changed))


@pytest.mark.parametrize("difference", ["squared", "norm"])
@pytest.mark.parametrize("normalisation", ["scene", "batch"])
def test_statistic_equals_brute_force(difference: str, normalisation: str) -> None:
    batch = scenes(40, 25)
    found = local_statistic(
        batch.coord, [batch.coord, batch.color], batch.offset, num_neighbors=6, difference=difference,  # type: ignore[arg-type]
        normalisation=normalisation,  # type: ignore[arg-type]
    )  # fmt: skip
    raw = np.empty((2, 65))
    for start, end in ((0, 40), (40, 65)):
        coord, color = batch.coord[start:end].numpy(), batch.color[start:end].numpy()
        _, near = cKDTree(coord).query(coord, 6)
        for c, cue in enumerate((coord, color)):
            gap = cue[near] - cue[:, None]
            raw[c, start:end] = (gap**2).sum((1, 2)) if difference == "squared" else np.linalg.norm(gap, axis=2).sum(1)
    expected = np.zeros(65)
    groups = [slice(0, 40), slice(40, 65)] if normalisation == "scene" else [slice(0, 65)]
    for group in groups:
        part = raw[:, group]
        low, high = part.min(1, keepdims=True), part.max(1, keepdims=True)
        expected[group] = ((part - low) / (high - low)).sum(0)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_scene_of_one_colour_has_a_statistic_of_its_shape_alone() -> None:
    batch = scenes(30)
    grey = torch.full_like(batch.color, 0.5)
    both, shape = (
        local_statistic(batch.coord, cues, batch.offset, num_neighbors=5, difference="squared", normalisation="scene")
        for cues in ([batch.coord, grey], [batch.coord])
    )
    assert torch.equal(both, shape)


def test_masks_are_the_highest_of_every_scene_and_nested() -> None:
    score, offset = torch.rand(30).round(decimals=1), torch.tensor([11, 13, 30])
    narrow = keep_highest(score, offset, torch.tensor([0.5, 0.01, 0.25]))
    for start, end, count in ((0, 11, 5), (11, 13, 1), (13, 30, 4)):
        own = score[start:end].tolist()
        order = sorted(range(end - start), key=lambda i: (-own[i], i))[:count]
        assert torch.nonzero(narrow[start:end]).squeeze(1).tolist() == sorted(order)
    wide = keep_highest(score, offset, torch.tensor([0.6, 0.5, 0.9]))
    assert bool((wide | ~narrow).all())


def test_selection_keeps_order_and_scenes() -> None:
    batch = scenes(4, 3)
    some = select(batch, torch.tensor([True, False, True, False, False, True, True]))
    assert some.segment.tolist() == [0, 2, 5, 6]
    assert some.offset.tolist() == [2, 4]


@pytest.mark.parametrize("mask", ["preserved", "abandoned", "random"])
def test_student_sees_the_points_that_the_mask_is_named_for(mask: str) -> None:
    batch = scenes(200)
    drawn = method({"mask": mask, "keep": (0.4, 0.4)}).hide(batch)
    assert int(drawn.visible.sum()) == 80
    assert int(drawn.target.sum()) == 100
    assert bool((drawn.target | ~drawn.visible).all())
    seen, unseen = drawn.statistic[drawn.visible], drawn.statistic[~drawn.visible]
    assert {
        "preserved": seen.min() >= unseen.max(),
        "abandoned": seen.max() <= unseen.min(),
        "random": seen.min() < unseen.max() and seen.max() > unseen.min(),
    }[mask]


def test_target_grows_with_the_gap() -> None:
    batch, open_end, usual = scenes(300), method({"gap": "random"}), method()
    for _ in range(20):
        drawn = open_end.hide(batch)
        assert drawn.visible.sum() <= drawn.target.sum() <= 300
    whole = method({"progressive": False}).hide(batch)
    assert bool(whole.target.all())
    shares = [float(usual.hide(batch).visible.float().mean()) for _ in range(30)]
    assert 0.29 < min(shares) < 0.45
    assert 0.65 < max(shares) < 0.81


@pytest.mark.parametrize("cues", ["coord", "color", "both", "embedding"])
def test_every_cue_gives_finite_losses_and_the_embedding_is_fixed(cues: str) -> None:
    learner = method({"cues": cues})
    assert bool(torch.isfinite(learner(scenes(80, 60))["loss"]))
    assert (learner.embed is not None) == (cues == "embedding")
    assert all(
        not p.requires_grad for p in learner.parameters() if learner.embed and p in set(learner.embed.parameters())
    )


@pytest.mark.parametrize(
    ("dims", "hidden", "grid", "reads_coord", "expected"),
    [
        ((32, 64, 128, 256, 512), 256, (2, 2), True, 865_054),
        ((256,), 512, (2, 1), False, 532_998),
        ((256,) * 4, 512, (2, 1), False, 4 * 532_998),
    ],
)
def test_completion_heads_have_the_published_sizes(
    dims: tuple[int, ...], hidden: int, grid: tuple[int, int], reads_coord: bool, expected: int
) -> None:
    heads = [CoordinateVariation(dim, hidden=hidden, grid=grid, extent=1.0, reads_coord=reads_coord) for dim in dims]
    assert sum(p.numel() for head in heads for p in head.parameters()) == expected


@pytest.mark.parametrize("reads_coord", [True, False])
def test_completion_equals_equation_2_on_repeated_features(reads_coord: bool) -> None:
    head = CoordinateVariation(6, hidden=8, grid=(2, 2), extent=0.5, reads_coord=reads_coord)
    level = SceneLevel(coord=torch.rand(5, 3), feature=torch.randn(5, 6), offset=torch.tensor([5]))
    feature = torch.cat([level.feature, level.coord], 1) if reads_coord else level.feature
    repeated = feature.repeat_interleave(4, 0)
    grid = torch.tensor([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]).repeat(5, 1)

    def plain(layers: nn.Module, given: torch.Tensor) -> torch.Tensor:
        for i in (1, 2):
            given = getattr(layers, f"linear{i}")(given)
            norm = getattr(layers, f"norm{i}")
            given = F.relu(F.batch_norm(given, None, None, norm.weight, norm.bias, training=True))
        return layers.linear3(given)  # type: ignore[no-any-return, operator]

    folded = plain(head.fold, torch.cat([repeated, grid], 1))
    moved = plain(head.move, torch.cat([repeated, folded], 1))
    expected = level.coord.repeat_interleave(4, 0) + moved
    torch.testing.assert_close(head(level), expected, rtol=1e-4, atol=1e-5)


def test_reconstruction_by_hand() -> None:
    learner = method(chamfer="sum", cd_reduction="sum", consistency_weight=0.0)

    class Still(nn.Module):
        def forward(self, level: SceneLevel) -> torch.Tensor:
            return level.coord

    learner.heads = nn.ModuleList([Still()])
    target = scenes(2, 1)
    target.coord.copy_(torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 0, 0]]))
    level = SceneLevel(torch.tensor([[1.0, 0, 0], [0, 3, 4]]), torch.zeros(2, 1), torch.tensor([1, 2]))
    # Scene 1: there 1, back (1 + 3) / 2; scene 2: there 5, back 5.
    assert learner.reconstruction([level], target).item() == pytest.approx(3 + 10)
    learner.chamfer_factor, learner.cd_reduction = 1.0, "mean"
    assert learner.reconstruction([level], target).item() == pytest.approx(6.5 / 2)


def test_consistency_compares_with_the_teacher_at_the_same_places() -> None:
    learner = method(temperature=0.5, max_samples=1000)
    target = scenes(30, 20)
    level = SceneLevel(target.coord, torch.randn(50, 8), target.offset)

    class Told(nn.Module):
        def forward(self, _: SceneBatch) -> list[SceneLevel]:
            return [SceneLevel(target.coord, teacher, target.offset)]

    teacher = torch.randn(50, 8)
    learner.teacher = Told()  # type: ignore[assignment]
    expected = []
    for own, goal in zip(level.feature.split((30, 20)), teacher.split((30, 20)), strict=True):
        similarity = F.normalize(own, dim=1) @ F.normalize(goal, dim=1).T / 0.5
        expected.append(F.cross_entropy(similarity, torch.arange(len(own))))
    torch.testing.assert_close(learner.consistency([level], target), torch.stack(expected).mean(), rtol=1e-4, atol=1e-4)


def test_at_most_so_many_points_of_a_scene_are_compared() -> None:
    learner = method(max_samples=10)
    batch = scenes(160, 150)
    assert bool(torch.isfinite(learner(batch)["loss/consistency"]))
    # Ten random directions agree with nothing: about the logarithm of ten at a high temperature.
    learner.temperature = 1e6
    assert learner(batch)["loss/consistency"].item() == pytest.approx(2 * np.log(10), rel=1e-3)


def test_every_trained_parameter_gets_a_gradient_and_the_teacher_none() -> None:
    learner = method()
    losses = learner(scenes(90, 70))
    torch.testing.assert_close(losses["loss"], losses["loss/reconstruction"] + losses["loss/consistency"])
    losses["loss"].backward()
    assert learner.teacher is not None
    assert [n for n, p in learner.named_parameters() if p.grad is None and not n.startswith("teacher.")] == []
    assert all(p.grad is None for p in learner.teacher.parameters())


def test_teacher_follows_after_every_step() -> None:
    learner = method(momentum=0.75)
    assert learner.teacher is not None
    before = learner.teacher.network.stem.weight.clone()
    with torch.no_grad():
        learner.encoder.stem.weight.add_(1.0)  # type: ignore[attr-defined]
    learner.after_step()
    torch.testing.assert_close(learner.teacher.network.stem.weight, before + 0.25)


@pytest.mark.parametrize("left_out", ["reconstruction", "consistency"])
def test_half_of_the_method_can_be_left_out(left_out: str) -> None:
    learner = method(**{f"{left_out}_weight": 0.0})
    assert isinstance(learner, SceneMethod)
    assert set(learner(scenes(80))) == {
        "loss",
        f"loss/{'consistency' if left_out == 'reconstruction' else 'reconstruction'}",
    }
    assert len(learner.heads) == (0 if left_out == "reconstruction" else 2)
    learner.after_step()
    assert ("reconstruction" in learner.eval().look(scenes(80))) == (left_out == "consistency")


def test_what_is_looked_at_lies_in_the_scenes_own_frames() -> None:
    batch = scenes(90, 60)
    batch.coord[90:] += 100
    found = method().eval().look(batch)
    assert found["statistic"].shape == found["visible"].shape == (150,)
    restored, visible = found["reconstruction"], found["visible"]
    assert len(restored) == 4 * int(visible.sum())
    second = restored[4 * int(visible[:90].sum()) :]
    assert (second.mean(0) - batch.coord[90:].mean(0)).abs().max() < 3
    assert at_corner(batch).coord.amin() == 0


def test_it_learns_a_scene() -> None:
    learner = method({"keep": (0.5, 0.5)}, max_samples=32)
    batch, optimizer = scenes(64, 64), build_optimizer(learner, lr=2e-2, weight_decay=0.0, beta2=0.99)
    curve = []
    for _ in range(25):
        losses = learner(batch)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        learner.after_step()
        curve.append([losses["loss/reconstruction"].item(), losses["loss/consistency"].item()])
    first, last = np.mean(curve[:3], axis=0), np.mean(curve[-3:], axis=0)
    assert (last < 0.7 * first).all()


def test_values_out_of_range_are_refused() -> None:
    for plan, message in (
        ({"keep": (0.5, 0.95)}, "leaves the scene"),
        ({"keep": (0.8, 0.3)}, "smallest first"),
        ({"num_neighbors": 1}, "at least 2, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            method(plan)
    with pytest.raises(ValueError, match="not both 0"):
        method(reconstruction_weight=0.0, consistency_weight=0.0)
    with pytest.raises(ValueError, match="temperature is above 0"):
        method(temperature=0.0)
    with pytest.raises(ValueError, match="two hidden channels"):
        CoordinateVariation(4, hidden=1, grid=(1, 1), extent=1.0, reads_coord=False)

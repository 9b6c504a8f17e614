"""MSM: what is hidden stays hidden, two views meet at the same places, the teacher follows, the loss falls."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pointloom.methods.msm import MSM
from pointloom.methods.voxel_masks import other_views, random_crops, random_voxels
from pointloom.models.sparse_unet import HUNet
from pointloom.ops.voxel_levels import VoxelLevels
from pointloom.ops.voxels import voxelize
from pointloom.structures import SceneMethod
from tests.models.scene_views import turned_views as views
from tests.models.scenes import box_scenes


def network(**changed: Any) -> HUNet:
    numbers: dict[str, Any] = {
        "voxel_size": 0.1, "dims": (8, 12, 16), "decoder_dims": (10, 12, 16), "num_heads": (1, 1, 2),
        "convolutions": (1, 1, 1), "attentions": (0, 0, 1), "window": 16, "drop_path": 0.0, "attention_dropout": 0.0,
        "sampling": "trilinear",
    }  # fmt: skip
    return HUNet(**numbers | changed)


def method(network: Callable[[], HUNet] = network, **changed: Any) -> MSM:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "mask": "bottom_up", "mask_ratio": 0.4, "mask_shared": False, "crop_points": 150, "loss_levels": (1, 2, 3),
        "target_norm": "none", "momentum": 0.9, "total_steps": 10,
    }  # fmt: skip
    return MSM(network(), **values | changed)


def grid(seed: int = 0) -> VoxelLevels:
    scenes = box_scenes(seed=seed)
    return VoxelLevels(voxelize(scenes.coord, scenes.offset, 0.1)[0], depth=3)


@pytest.mark.parametrize("ratio", [0.1, 0.4, 0.95])
def test_a_share_of_every_scene_is_hidden_and_never_all(ratio: float) -> None:
    voxels = grid().voxels[1]
    counts = torch.bincount(voxels.scene)
    hidden = torch.bincount(voxels.scene[random_voxels(voxels, ratio)], minlength=2)
    expected = np.clip(np.round(ratio * counts.numpy()), 1, counts.numpy() - 1)
    assert hidden.tolist() == expected.tolist()
    alone, _, _ = voxelize(torch.zeros(1, 3), torch.tensor([1]), 0.1)
    assert random_voxels(alone, 0.4).tolist() == [False]


def test_every_voxel_is_hidden_as_often_as_the_others() -> None:
    voxels = grid().voxels[2]
    share = torch.stack([random_voxels(voxels, 0.4) for _ in range(400)]).float().mean(0)
    assert (share - 0.4).abs().max() < 0.15


def test_crops_are_the_voxels_nearest_to_one_of_them() -> None:
    voxels = grid().voxels[0]
    kept = random_crops(voxels, [60, 60])
    for scene in range(2):
        own = voxels.scene == scene
        coord, inside = voxels.coord[own].float(), kept[own]
        assert int(inside.sum()) == 60
        distance = torch.cdist(coord[inside], coord)
        fits = distance[:, inside].amax(1) <= distance[:, ~inside].amin(1)
        assert fits.any()
    assert random_crops(voxels, [10_000, 10_000]).all()


def test_other_views_are_found_by_brute_force() -> None:
    sizes, other_sizes = (5, 7, 6, 4), (8, 3, 9, 6)
    place, other = torch.rand(sum(sizes), 3), torch.rand(sum(other_sizes), 3)
    offset, other_offset = torch.tensor(sizes).cumsum(0), torch.tensor(other_sizes).cumsum(0)
    row, distance = other_views(place, offset, other, other_offset)
    scene = np.repeat(range(4), sizes)
    other_scene = np.repeat(range(4), other_sizes)
    for i in range(len(place)):
        far = (place[i] - other).norm(dim=1)
        far[other_scene != scene[i] ^ 1] = torch.inf
        assert int(row[i]) == int(far.argmin())
        assert float(distance[i]) == pytest.approx(float(far.min()), abs=1e-6)


def test_masks_are_the_same_regions_at_all_resolutions() -> None:
    levels = grid()
    hidden = method().hide(levels, levels.means(levels.voxels[0].centers)[-1])
    for level in range(3):
        ancestor = levels.voxels[level].coord >> (2 - level)
        row = levels.voxels[2].find(ancestor, levels.voxels[level].scene)
        assert torch.equal(hidden[level], hidden[2][row])


def test_shared_masks_hide_the_same_places_in_both_views() -> None:
    chosen = method(mask_shared=True)
    batch = views()
    batch = replace(batch, scenes=replace(batch.scenes, coord=batch.place))  # two equal views
    levels, _, place = chosen.voxelize(batch)
    hidden = chosen.hide(levels, levels.means(place)[-1])
    for rows, voxels in zip(hidden, levels.voxels, strict=True):
        second = voxels.scene % 2 == 1
        assert torch.equal(rows[~second], rows[second])
    apart, second = method().hide(levels, levels.means(place)[-1])[0], levels.voxels[0].scene % 2 == 1
    assert not torch.equal(apart[~second], apart[second])


def test_shared_masks_of_crops_that_do_not_meet_leave_something_to_see() -> None:
    chosen = method(mask_shared=True)
    levels = grid()  # two views of one scene
    coarsest = levels.voxels[-1]
    far = coarsest.centers + 100.0 * (coarsest.scene % 2)[:, None]
    for seed in range(20):  # nearest to all of the second view is the same voxel of the first
        torch.manual_seed(seed)
        hidden = chosen.hide(levels, far)[-1]
        counts = torch.bincount(coarsest.scene[hidden], minlength=2)
        expected = (0.4 * torch.bincount(coarsest.scene)).round().long()
        assert counts.tolist() == expected.tolist()


def test_a_shared_mask_that_would_hide_all_of_the_second_view_is_not_shared() -> None:
    chosen, levels = method(mask_shared=True), grid()
    coarsest = levels.voxels[-1]
    place = torch.where((coarsest.scene % 2 == 0)[:, None], coarsest.centers, torch.zeros(1, 3))
    first = coarsest.scene == 0
    nearest = torch.where(first, place.norm(dim=1), torch.inf).argmin()
    place[nearest] = 0.0  # one voxel of the first view is where the whole second view is
    for seed in range(10):
        torch.manual_seed(seed)
        hidden = chosen.hide(levels, place)[-1]
        assert (~hidden[~first]).any()


def test_hidden_voxels_cannot_change_what_the_student_encodes() -> None:
    chosen = method().eval()
    levels, feature, place = chosen.voxelize(views())
    hidden = chosen.hide(levels, levels.means(place)[-1])
    changed = torch.where(hidden[0][:, None], feature + 1, feature)
    (seen, decoded), (seen_changed, decoded_changed) = (
        chosen.student(levels, rows, hidden) for rows in (feature, changed)
    )
    for before, after in zip(seen + decoded, seen_changed + decoded_changed, strict=True):
        assert torch.equal(before, after)
    open_eyes = method(mask="none").eval()
    assert not torch.equal(
        open_eyes.student(levels, feature, hidden)[0][0], open_eyes.student(levels, changed, hidden)[0][0]
    )


def test_top_down_tokens_take_the_place_of_the_input() -> None:
    chosen = method(mask="top_down").eval()
    levels, feature, place = chosen.voxelize(views())
    hidden = chosen.hide(levels, levels.means(place)[-1])
    changed = torch.where(hidden[0][:, None], feature + 1, feature)
    before, after = (chosen.student(levels, rows, hidden) for rows in (feature, changed))
    assert torch.equal(before[0][0], after[0][0])
    assert [len(rows) for rows in before[0]] == [len(voxels.key) for voxels in levels.voxels]


def test_tokens_fill_the_holes_of_every_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = method().eval()
    levels, feature, place = chosen.voxelize(views())
    hidden = chosen.hide(levels, levels.means(place)[-1])
    given = []
    monkeypatch.setattr(chosen.encoder, "decode", lambda _, filled: given.append(filled) or filled)
    seen, _ = chosen.student(levels, feature, hidden)
    for rows, own, mask, token in zip(given[0], seen, hidden, chosen.tokens, strict=True):
        assert torch.equal(rows[~mask], own)
        assert (rows[mask] == token).all()


def test_views_of_one_scene_meet_at_the_same_places() -> None:
    chosen = method(mask="none", crop_points=10_000)
    levels, _, place = chosen.voxelize(views())
    places = levels.means(place)
    for level in range(3):
        voxels = levels.voxels[level]
        _, distance = other_views(places[level], voxels.offset, places[level], voxels.offset)
        assert (distance < voxels.size).float().mean() > 0.95


@pytest.mark.parametrize("mask", ["bottom_up", "top_down", "none"])
def test_every_trainable_weight_gets_a_gradient_and_the_teacher_none(mask: str) -> None:
    chosen = method(mask=mask)
    losses = chosen(views())
    losses["loss"].backward()
    for name, parameter in chosen.named_parameters():
        if name.startswith("teacher."):
            assert parameter.grad is None
            assert not parameter.requires_grad
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_loss_is_the_sum_over_the_chosen_resolutions() -> None:
    chosen = method(loss_levels=(1, 3))
    losses = chosen(views())
    assert set(losses) == {"loss", "loss/level1", "loss/level3", "std/level1", "std/level3"}
    assert losses["loss"].item() == pytest.approx((losses["loss/level1"] + losses["loss/level3"]).item())
    assert set(chosen.predictors) == {"0", "2"}
    assert losses["std/level1"].item() > 0


def test_loss_is_the_mean_distance_to_the_nearest_teacher_voxel() -> None:
    chosen = method(mask="none", loss_levels=(2,), crop_points=10_000).eval()
    batch = views()
    levels, feature, place = chosen.voxelize(batch)
    _, decoded = chosen.student(levels, feature, [])
    taught = chosen.teach(levels, feature)
    places, voxels = levels.means(place)[1], levels.voxels[1]
    differences = []
    for i in range(len(places)):
        far = (places[i] - places).norm(dim=1)
        far[voxels.scene != voxels.scene[i] ^ 1] = torch.inf
        if far.min() < 0.2:
            guess = chosen.predictors["1"](decoded[1][i : i + 1])
            differences.append((guess - taught[1][far.argmin()]).abs().mean())
    assert chosen(batch)["loss"].item() == pytest.approx(torch.stack(differences).mean().item(), rel=1e-4)


def test_normalised_targets_have_unit_spread_per_voxel() -> None:
    levels, feature, _ = method().voxelize(views())
    for rows in method(target_norm="layernorm").teach(levels, feature):
        torch.testing.assert_close(rows.mean(1), torch.zeros(len(rows)), atol=1e-5, rtol=0)
        assert float(rows.std(1, correction=0).mean()) == pytest.approx(1, abs=0.01)


def test_the_teacher_follows_with_rising_momentum_and_stays_in_evaluation_mode() -> None:
    chosen = method(momentum=0.5, total_steps=2).train()
    assert not chosen.teacher.network.training
    weight = chosen.encoder.stem[0].weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.add_(1)
    chosen.after_step()  # momentum 0.5, then 0.75, then 1
    teacher = chosen.teacher.network.stem[0].weight  # type: ignore[union-attr, index]
    torch.testing.assert_close(teacher, before + 0.5)
    chosen.after_step()
    torch.testing.assert_close(teacher, before + 0.625)
    chosen.after_step()
    chosen.after_step()
    torch.testing.assert_close(teacher, before + 0.625)
    assert int(chosen.state_dict()["step"]) == 4


def test_a_small_scene_is_learned() -> None:
    chosen = method(momentum=0.99, total_steps=40, target_norm="layernorm").train()
    optimizer = torch.optim.AdamW([p for p in chosen.parameters() if p.requires_grad], lr=3e-3)
    curve = []
    for _ in range(20):
        loss = chosen(views())["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        chosen.after_step()
        curve.append(loss.item())
    assert np.mean(curve[-5:]) < 0.9 * np.mean(curve[:5])


def test_same_seed_same_losses() -> None:
    runs = []
    for _ in range(2):
        chosen = method().train()
        torch.manual_seed(5)
        runs.append(chosen(views())["loss"].item())
    assert runs[0] == runs[1]


def test_looking_at_scenes_gives_a_colour_per_point() -> None:
    chosen, scenes = method().eval(), box_scenes()
    assert isinstance(chosen, SceneMethod)
    looked = chosen.look(scenes)
    assert looked["pca"].shape == (500, 3)
    assert looked["pca"].dtype == torch.uint8
    assert looked["pca"].float().std(0).min() > 5


def test_values_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"loss_levels must be some of 1\.\.3, the finest is 1; got \[0, 1\]"):
        method(loss_levels=[0, 1])
    with pytest.raises(ValueError, match="unknown mask 'all'"):
        method(mask="all")
    with pytest.raises(ValueError, match="mask_ratio must be in"):
        method(mask_ratio=1.0)

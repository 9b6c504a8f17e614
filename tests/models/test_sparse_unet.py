"""HUNet: published size, deterministic features, scenes apart from each other, features at any point."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from pointloom.models import SCENE_ENCODERS, build_scene_encoder
from pointloom.models.sparse_layers import RMSNorm
from pointloom.models.sparse_unet import HUNet, hunet_ablation, hunet_large, hunet_tiny
from pointloom.structures import SceneEncoder
from tests.models.scenes import box_scenes


@pytest.fixture(scope="module")
def tiny() -> HUNet:
    torch.manual_seed(0)
    return hunet_tiny(voxel_size=0.1).eval()


def test_published_size_has_the_published_parameter_count() -> None:
    with torch.device("meta"):
        encoder = hunet_large()
        ablation = hunet_ablation()
    decoder = ("decoder", "up")
    count = {part: 0 for part in ("encoder", "decoder")}
    for name, parameter in encoder.named_parameters():
        count["decoder" if name.startswith(decoder) else "encoder"] += parameter.numel()
    assert count == {"encoder": 33_284_032, "decoder": 34_326_240}
    assert sum(encoder.dims) == 928
    assert sum(p.numel() for p in ablation.parameters()) == pytest.approx(66.99e6, rel=1e-3)


@pytest.mark.parametrize("name", ["hunet_large", "hunet_ablation", "hunet_tiny"])
def test_presets_are_scene_encoders(name: str) -> None:
    assert name in SCENE_ENCODERS
    with torch.device("meta"):
        assert isinstance(build_scene_encoder(name), SceneEncoder)


@pytest.mark.parametrize("blocks", ["both", "convolution", "attention"])
def test_levels_are_the_occupied_voxels_of_each_resolution(blocks: Any) -> None:
    encoder, scenes = hunet_tiny(voxel_size=0.1, blocks=blocks), box_scenes()
    levels = encoder(scenes)
    assert [level.feature.shape[1] for level in levels] == list(encoder.dims)
    starts = [0, *scenes.offset.tolist()]
    for number, level in enumerate(levels):
        counts = []
        for first, last in pairwise(starts):
            cell = torch.floor(scenes.coord[first:last] / 0.1).long()
            counts.append(len(((cell - cell.amin(0)) >> number).unique(dim=0)))
        assert level.offset.diff(prepend=torch.zeros(1, dtype=torch.long)).tolist() == counts
        assert torch.isfinite(level.feature).all()
    kinds = {name.split(".")[1] for name, _ in encoder.encoder.named_parameters()}
    expected = {"both": {"convolutions", "attentions"}, "convolution": {"convolutions"}, "attention": {"attentions"}}
    assert kinds == expected[blocks]


def test_features_are_the_same_in_every_run_and_differ_while_training(tiny: HUNet) -> None:
    scenes = box_scenes()
    first, again = tiny(scenes), tiny(scenes)
    assert all(torch.equal(a.feature, b.feature) for a, b in zip(first, again, strict=True))
    wild = hunet_tiny(voxel_size=0.1, drop_path=0.5, attention_dropout=0.3).train()
    assert not torch.equal(wild(scenes)[0].feature, wild(scenes)[0].feature)


def test_a_scene_has_the_same_features_alone_and_beside_others(tiny: HUNet) -> None:
    scenes = box_scenes()
    alone = replace(
        scenes,
        **{name: getattr(scenes, name)[300:] for name in ("coord", "color", "normal", "segment", "instance")},
        offset=torch.tensor([200]),
        row=torch.tensor([1]),
    )
    together, single = tiny(scenes), tiny(alone)
    for both, one in zip(together, single, strict=True):
        torch.testing.assert_close(both.feature[both.offset[0] :], one.feature, atol=1e-5, rtol=1e-4)


def test_a_step_of_whole_coarsest_voxels_changes_nothing(tiny: HUNet) -> None:
    scenes = box_scenes()
    scenes = replace(scenes, coord=(scenes.coord * 10).floor() / 10 + 0.05)
    moved = replace(scenes, coord=scenes.coord + torch.tensor([1.6, 0.8, 0.0]))
    for here, there in zip(tiny(scenes), tiny(moved), strict=True):
        torch.testing.assert_close(here.feature, there.feature, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(there.coord - here.coord, torch.tensor([1.6, 0.8, 0.0]).expand_as(here.coord))


def test_spread_returns_a_voxels_own_features_at_its_middle(tiny: HUNet) -> None:
    scenes = box_scenes()
    levels = tiny(scenes)
    spread = tiny.spread(levels, levels[0].coord, levels[0].offset)
    assert spread.shape == (len(levels[0].coord), sum(tiny.dims))
    torch.testing.assert_close(spread[:, : tiny.dims[0]], levels[0].feature, atol=1e-3, rtol=1e-3)


def test_spread_does_not_depend_on_the_other_scenes_and_reaches_the_weights() -> None:
    encoder, scenes = hunet_tiny(voxel_size=0.1), box_scenes()
    levels = encoder(scenes)
    changed = [
        replace(
            level,
            feature=torch.where(
                (torch.arange(len(level.coord)) >= level.offset[0])[:, None], 7.0, level.feature.detach()
            ),
        )
        for level in levels
    ]
    before = encoder.spread(levels, scenes.coord, scenes.offset)
    after = encoder.spread(changed, scenes.coord, scenes.offset)
    assert torch.equal(before[:300], after[:300])
    torch.testing.assert_close(after[300:], torch.full_like(after[300:], 7.0))
    before.square().mean().backward()
    missing = [name for name, p in encoder.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert missing == []


def test_norm_divides_by_the_root_mean_square_plus_epsilon() -> None:
    norm = RMSNorm(2)
    torch.testing.assert_close(
        norm(torch.tensor([[3.0, 4.0], [0, 0]])), torch.tensor([[3.0, 4], [0, 0]]) / (12.5**0.5 + 1e-4)
    )


def test_numbers_that_do_not_fit_are_refused() -> None:
    numbers: dict[str, Any] = {
        "voxel_size": 0.1, "dims": (8, 16), "decoder_dims": (8, 16), "num_heads": (1, 2), "convolutions": (1, 1),
        "attentions": (0, 1), "window": 8, "drop_path": 0.0, "attention_dropout": 0.0, "sampling": "trilinear",
    }  # fmt: skip
    HUNet(**numbers)
    with pytest.raises(ValueError, match="coarsest widths must be equal"):
        HUNet(**numbers | {"decoder_dims": (8, 12)})
    with pytest.raises(ValueError, match="voxel_size must be above 0"):
        HUNet(**numbers | {"voxel_size": 0.0})
    with pytest.raises(ValueError, match="dim 16 is not a multiple of num_heads 3"):
        HUNet(**numbers | {"num_heads": (1, 3)})
    with pytest.raises(ValueError, match="unknown blocks 'all'"):
        hunet_tiny(blocks="all")
    with pytest.raises(ValueError, match="unknown sampling 'linear'; known: trilinear, zeros, legacy"):
        hunet_tiny(sampling="linear")


def test_a_single_point_is_a_scene(tiny: HUNet) -> None:
    scenes = box_scenes((1,))
    levels = tiny(scenes)
    assert [len(level.coord) for level in levels] == [1, 1, 1, 1]
    spread = tiny.spread(levels, torch.tensor([[0.0, 0, 0], [50, 50, 50]]) + scenes.coord, torch.tensor([2]))
    assert torch.isfinite(spread).all()
    assert (spread[1] == 0).all()

"""PointNet++ against a plain loop, its published size, and what a scene encoder must do."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.models import SCENE_ENCODERS, build_scene_encoder
from pointloom.models.pointnet2 import FeaturePropagation, SetAbstraction, pointnet2_tiny, pointnet2_votenet
from pointloom.models.seeds import height_above_floor
from pointloom.structures import SceneEncoder, as_module
from tests.models.scenes import box_scenes

SEED_ENCODERS = {
    "pointnet2_tiny": {"num_seeds": 16, "width": 16},
    "detr": {"num_tokens": 16, "dim": 16, "num_neighbors": 8},
    "detr_masked": {"num_tokens": 32, "dim": 16, "num_neighbors": 8},
}


def tiny_encoder(name: str, **changed: bool) -> SceneEncoder:
    return build_scene_encoder(name, **(SEED_ENCODERS[name] | changed))


def plain_abstraction(layer: SetAbstraction, centers: Tensor, coord: Tensor, feature: Tensor) -> Tensor:
    """Section 3.2 centre by centre: the first points of the ball, transformed, their maximum."""
    members = []
    for scene in range(len(centers)):
        for center in centers[scene]:
            near = ((coord[scene] - center).norm(dim=-1) < layer.radius).nonzero().flatten()[: layer.num_neighbors]
            near = torch.cat([near, near[:1].expand(layer.num_neighbors - len(near))])
            place = (coord[scene, near] - center) / layer.radius
            members.append(torch.cat([place, feature[scene, near]], dim=1))
    x = torch.stack(members)
    for linear, norm in zip([layer.first, *layer.rest], layer.norms, strict=True):
        x = F.linear(x, linear.weight)
        flat = F.batch_norm(x.flatten(0, 1), norm.running_mean.clone(), norm.running_var.clone(), norm.weight,
                            norm.bias, training=layer.training)  # fmt: skip
        x = flat.view_as(x).relu()
    return x.amax(1).view(*centers.shape[:2], -1)


@pytest.mark.parametrize("training", [True, False])
def test_set_abstraction_equals_the_definition(training: bool) -> None:
    layer = SetAbstraction(4, widths=(8, 8, 6), radius=0.3, num_neighbors=5).train(training)
    for norm in layer.norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    coord, feature = torch.rand(2, 60, 3), torch.randn(2, 60, 4)
    centers = coord[:, :7]
    wanted = plain_abstraction(layer, centers, coord, feature)
    torch.testing.assert_close(layer(centers, coord, feature), wanted, atol=1e-5, rtol=1e-5)


def test_set_abstraction_does_not_care_where_the_scene_is() -> None:
    layer = SetAbstraction(0, widths=(8, 8), radius=0.3, num_neighbors=5)
    coord = torch.rand(1, 60, 3)
    shift = torch.tensor([8.0, -8.0, 2.0])
    here, there = (layer(c[:, :7], c, None) for c in (coord, coord + shift))
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)


def test_propagation_carries_by_inverse_distance() -> None:
    layer = FeaturePropagation(3, 2)
    layer.mlp = nn.Identity()
    coarse = torch.tensor([[[0.0, 0, 0], [3, 0, 0], [0, 6, 0], [9, 9, 9]]])
    value = torch.tensor([[[1.0, 0], [0, 1.0], [0, 0], [7, 7]]])
    fine = torch.tensor([[[1.0, 0, 0]]])
    weights = 1 / torch.tensor([1.0, 2.0, 37.0**0.5])
    wanted = torch.cat([weights[:2] / weights.sum(), torch.tensor([5.0])])
    torch.testing.assert_close(layer(fine, torch.tensor([[[5.0]]]), coarse, value)[0, 0], wanted, atol=1e-5, rtol=0)


def test_votenets_backbone_has_the_published_size() -> None:
    """Four abstractions 13,056 + 66,944 + 2 x 83,328 and two propagations 2 x 197,632, with the height as input."""
    assert sum(p.numel() for p in pointnet2_votenet().parameters()) == 641_920


def test_height_of_a_flat_floor_is_zero() -> None:
    coord = torch.rand(1, 1000, 3)
    coord[0, :500, 2] = 0.25
    coord[0, 500:, 2] += 0.25
    assert float(height_above_floor(coord).min()) == 0
    torch.testing.assert_close(height_above_floor(coord), coord[..., 2] - 0.25)


@pytest.mark.parametrize("name", sorted(SEED_ENCODERS))
def test_scene_encoder_returns_one_level_and_spreads_it(name: str) -> None:
    encoder, scenes = tiny_encoder(name), box_scenes((90, 90))
    assert isinstance(encoder, SceneEncoder)
    assert name in SCENE_ENCODERS
    (level,) = encoder(scenes)
    assert level.offset.tolist() == [16, 32]
    assert level.feature.shape == (32, encoder.dims[0])
    everywhere = encoder.spread([level], scenes.coord, scenes.offset)
    assert everywhere.shape == (180, encoder.dims[0])
    at_seeds = encoder.spread([level], level.coord, level.offset)
    torch.testing.assert_close(at_seeds, level.feature, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", sorted(SEED_ENCODERS))
def test_scenes_do_not_see_each_other(name: str) -> None:
    encoder = as_module(tiny_encoder(name)).eval()
    both, first = box_scenes((90, 90)), box_scenes((90,))
    first = type(first)(**{k: v[:90] if len(v) == 180 else v[:1] for k, v in vars(both).items()})
    torch.testing.assert_close(encoder(both)[0].feature[:16], encoder(first)[0].feature, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(SEED_ENCODERS))
def test_smaller_scenes_repeat_their_points(name: str) -> None:
    encoder = as_module(tiny_encoder(name)).eval()
    for sizes in ((120, 80), (9, 20)):  # at most as many points as are sampled
        levels = encoder(box_scenes(sizes))
        assert levels[0].offset.tolist() == [16, 32]
        assert torch.isfinite(levels[0].feature).all()


@pytest.mark.parametrize("name", sorted(SEED_ENCODERS))
def test_every_parameter_has_a_gradient(name: str) -> None:
    encoder = as_module(tiny_encoder(name, color=True))
    encoder(box_scenes((90, 90)))[0].feature.square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", sorted(SEED_ENCODERS))
def test_colours_change_what_an_encoder_with_colour_says(name: str) -> None:
    scenes = box_scenes((90, 90))
    other = type(scenes)(**(vars(scenes) | {"color": 1 - scenes.color}))
    for color in (True, False):
        encoder = as_module(tiny_encoder(name, color=color)).eval()
        same = torch.equal(encoder(scenes)[0].feature, encoder(other)[0].feature)
        assert same != color


def test_too_few_points_of_dense_scenes_and_bad_coordinates_are_errors() -> None:
    encoder = pointnet2_tiny(num_seeds=64)
    with pytest.raises(ValueError, match="cannot choose 128 points from clouds of 90"):
        encoder.embed(torch.rand(2, 90, 3), torch.rand(2, 90, 3), torch.rand(2, 90), torch.rand(2, 90, 3))
    scenes = box_scenes((200, 200))
    scenes.coord[3] = torch.nan
    with pytest.raises(ValueError, match="must be finite"):
        encoder(scenes)

"""Segmentation heads: sizes of the papers, equal to the plain definition, gradients everywhere."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.models import build_encoder
from pointloom.models.part_segmentation import (
    PointM2AESegmentationHead,
    PointMAESegmentationHead,
    PointSegmenter,
    evenly_spaced_taps,
    tapped_tokens,
)
from pointloom.structures import Tokens


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def one_hot(*labels: int, num: int = 16) -> Tensor:
    return F.one_hot(torch.tensor(labels), num).float()


def tiny(**args: int | bool) -> PointSegmenter:
    encoder = build_encoder("point_mae_tiny", num_groups=8, group_size=8, drop_path=0.0, **args)
    return PointSegmenter(encoder, num_parts=5, num_categories=2)


def test_point_mae_segmenters_have_the_published_parameter_counts() -> None:
    encoder = build_encoder("point_mae_small", num_groups=128)
    assert count(PointSegmenter(encoder, num_parts=50, num_categories=16)) == 27_063_730
    assert count(PointSegmenter(encoder, num_parts=13, num_categories=0)) == 27_020_301


def test_point_m2ae_head_makes_up_the_published_parameter_count() -> None:
    head = PointM2AESegmentationHead((96, 192, 384), num_parts=50, num_categories=16)
    assert 12_654_976 + count(head) == 25_474_354


@pytest.mark.parametrize(("depth", "taps"), [(12, (3, 7, 11)), (6, (1, 3, 5)), (3, (0, 1, 2)), (5, (1, 2, 4))])
def test_taps_end_the_thirds_of_an_encoder(depth: int, taps: tuple[int, ...]) -> None:
    assert evenly_spaced_taps(depth) == taps


def test_encoder_of_two_blocks_has_no_three_taps() -> None:
    with pytest.raises(ValueError, match="three blocks"):
        evenly_spaced_taps(2)


@pytest.mark.parametrize("class_token", [False, True])
def test_last_tap_is_what_the_encoder_returns(class_token: bool) -> None:
    encoder = build_encoder("point_mae_tiny", num_groups=8, group_size=8, class_token=class_token).eval()
    groups = encoder.group(torch.randn(2, 64, 3))
    taps = tapped_tokens(encoder, groups, taps=(1, 3, 5))  # type: ignore[arg-type]
    (whole,) = encoder(groups)
    assert len(taps) == 3
    assert torch.allclose(taps[-1].tokens, whole.tokens, atol=1e-6)
    assert not torch.allclose(taps[0].tokens, whole.tokens, atol=1e-2)


def spread(coord: Tensor, centers: Tensor, feature: Tensor) -> Tensor:
    """Inverse squared distance over the three nearest centres, point by point."""
    result = torch.empty(*coord.shape[:2], feature.shape[-1])
    for b in range(len(coord)):
        for n in range(coord.shape[1]):
            squared = (centers[b] - coord[b, n]).square().sum(-1)
            near = squared.argsort()[:3]
            weight = 1 / (squared[near] + 1e-8)
            result[b, n] = (weight / weight.sum()) @ feature[b, near]
    return result


def layer(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Linear on the concatenation, batch norm with stored statistics, ReLU."""
    y = x @ state[f"{name}.linear.weight"].T + state[f"{name}.linear.bias"]
    norm = (y - state[f"{name}.norm.running_mean"]) / (state[f"{name}.norm.running_var"] + 1e-5).sqrt()
    return (norm * state[f"{name}.norm.weight"] + state[f"{name}.norm.bias"]).relu()


def disturbed(head: nn.Module) -> dict[str, Tensor]:
    """Give batch norms statistics that are not 0 and 1, so that a forgotten one shows."""
    for name, value in head.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(std=0.1)
        elif name.endswith(("running_var", "norm.weight")):
            value.uniform_(0.5, 1.5)
    return head.eval().state_dict()


def embedded(state: dict[str, Tensor], category: Tensor) -> Tensor:
    y = category @ state["category_embed.linear.weight"].T
    norm = (y - state["category_embed.norm.running_mean"]) / (state["category_embed.norm.running_var"] + 1e-5).sqrt()
    return F.leaky_relu(norm * state["category_embed.norm.weight"] + state["category_embed.norm.bias"], 0.2)


def test_point_mae_head_equals_its_definition() -> None:
    coord, centers, category = torch.randn(2, 12, 3), torch.randn(2, 6, 3), one_hot(3, 0, num=4)
    levels = [Tokens(tokens=torch.randn(2, 6, c), centers=centers) for c in (5, 5, 5)]
    head = PointMAESegmentationHead((5, 5, 5), num_parts=7, num_categories=4)
    state = disturbed(head)
    tokens = torch.cat([level.tokens for level in levels], -1)
    point = torch.cat([coord, spread(coord, centers, tokens)], -1)
    point = layer(state, "propagation.layers.1", layer(state, "propagation.layers.0", point))
    cloud = torch.cat([tokens.amax(1), tokens.mean(1), embedded(state, category)], -1)
    joined = torch.cat([point, cloud[:, None].expand(-1, 12, -1)], -1)
    hidden = layer(state, "second", layer(state, "first", joined))
    expected = hidden @ state["last.weight"].T + state["last.bias"]
    assert torch.allclose(head(coord, levels, category), expected, atol=1e-5)


def test_point_m2ae_head_equals_its_definition() -> None:
    coord, category = torch.randn(2, 12, 3), one_hot(3, 0, num=4)
    levels = [Tokens(tokens=torch.randn(2, t, c), centers=torch.randn(2, t, 3)) for t, c in ((8, 4), (4, 6))]
    head = PointM2AESegmentationHead((4, 6), num_parts=7, num_categories=4)
    state = disturbed(head)
    spreads = []
    for i, level in enumerate(levels):
        point = torch.cat([coord, spread(coord, level.centers, level.tokens)], -1)
        point = layer(state, f"propagations.{i}.layers.0", point)
        spreads.append(layer(state, f"propagations.{i}.layers.1", point))
    point = torch.cat(spreads, -1)
    cloud = torch.cat([point.amax(1) + point.mean(1), embedded(state, category)], -1)
    hidden = layer(state, "first", torch.cat([cloud[:, None].expand(-1, 12, -1), point], -1))
    hidden = layer(state, "third", layer(state, "second", hidden))
    expected = hidden @ state["last.weight"].T + state["last.bias"]
    assert torch.allclose(head(coord, levels, category), expected, atol=1e-5)


def test_every_weight_is_trained() -> None:
    segmenter = tiny(class_token=True)
    segmenter(torch.randn(3, 64, 3), one_hot(0, 1, 1, num=2)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in segmenter.parameters())


def test_category_changes_the_answer() -> None:
    segmenter = tiny().eval()
    coord = torch.randn(2, 64, 3)
    first, second = segmenter(coord, one_hot(0, 0, num=2)), segmenter(coord, one_hot(1, 1, num=2))
    assert first.shape == (2, 64, 5)
    assert not torch.allclose(first, second, atol=1e-4)


def test_order_of_points_does_not_matter() -> None:
    segmenter = tiny().eval()
    coord, category = torch.randn(1, 64, 3), one_hot(1, num=2)
    order = torch.cat([torch.tensor([0]), 1 + torch.randperm(63)])  # the first point stays: sampling starts there
    found, shuffled = segmenter(coord, category), segmenter(coord[:, order], category)
    assert torch.allclose(found[:, order], shuffled, atol=1e-5)


def test_pointnet_has_no_segmentation_head() -> None:
    with pytest.raises(ValueError, match="no segmentation head for PointNetEncoder"):
        PointSegmenter(build_encoder("pointnet"), num_parts=5, num_categories=2)

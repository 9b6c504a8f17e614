"""The hierarchical encoder: patches, local attention, pooling, class token, padding."""

import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from pointloom.errors import ParamsError
from pointloom.methods.masking import multi_scale_mask
from pointloom.models import build_encoder
from pointloom.models.blocks import Attention
from pointloom.models.point_m2ae import RADII, PointM2AEEncoder, point_m2ae_tiny
from pointloom.models.visible import put_back, visible_slots
from pointloom.ops import farthest_point_sampling, gather_points
from pointloom.stages.finetune_tasks.base import tuned_encoder
from pointloom.structures import Tokens
from pointloom.train.checkpoint import save_encoder


def test_coarser_centres_are_the_farthest_point_sample_of_the_finer_ones() -> None:
    groups = point_m2ae_tiny().group(torch.randn(3, 200, 3))
    for finer, level in pairwise(groups):
        chosen = farthest_point_sampling(finer.centers, level.centers.shape[1])
        assert torch.equal(level.centers, gather_points(finer.centers, chosen))
        members = gather_points(finer.centers, level.index) - level.centers.unsqueeze(2)
        assert torch.equal(level.neighborhood, members)
        assert (level.neighborhood[:, :, 0] == 0).all()  # the nearest one is the centre itself


def test_tokens_of_three_scales_finest_first() -> None:
    encoder = build_encoder("point_m2ae_tiny").eval()
    tokens = encoder(encoder.group(torch.randn(2, 160, 3)))
    assert [level.tokens.shape[1:] for level in tokens] == [(128, 48), (64, 96), (32, 192)]
    assert all(level.valid is None for level in tokens)
    assert tuple(encoder.dims) == (48, 96, 192)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 0.02)]
)
def test_blocked_attention_equals_its_definition(dtype: torch.dtype, tolerance: float) -> None:
    """In bfloat16 the scores are made on their own, otherwise torch's fused form is used."""
    ours = Attention(12, num_heads=3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    q, k, v = ours.qkv(x).view(2, 5, 3, 3, 4).permute(2, 0, 3, 1, 4)
    per_query = torch.rand(2, 5, 5) < 0.5
    per_query[:, range(5), range(5)] = False
    scores = q @ k.transpose(2, 3) / 2
    for blocked in (per_query, per_query[:, :1]):
        share = scores.masked_fill(blocked.unsqueeze(1), -torch.inf).softmax(-1)
        expected = ours.proj((share @ v).transpose(1, 2).reshape(2, 5, 12))
        found = copy.deepcopy(ours).to(dtype)(x.to(dtype), blocked)
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_local_attention_sees_no_token_beyond_its_reach() -> None:
    """Two clusters far from each other: with local attention, the tokens of one do not depend on the other."""
    first, other = torch.randn(1, 80, 3) * 0.05, torch.randn(1, 80, 3) * 0.05 + 5.0
    together = torch.cat([first, other], dim=1)
    changed = torch.cat([first, 5.0 + (other - 5.0).flip(-1)], dim=1)
    for local in (True, False):
        encoder = build_encoder("point_m2ae_tiny", local_attention=local).eval()
        found = []
        for coord in (together, changed):
            (level,) = encoder(encoder.group(coord))[:1]
            found.append({tuple(c.tolist()): t for c, t in zip(level.centers[0], level.tokens[0], strict=True)})
        shared = [key for key in found[0] if key[0] < 2 and key in found[1]]
        assert len(shared) > 20
        same = [torch.allclose(found[0][key], found[1][key], atol=1e-5) for key in shared]
        assert all(same) if local else not any(same)


def test_pooled_feature_is_what_pooling_says() -> None:
    top = torch.randn(2, 6, 192)
    tokens = [Tokens(tokens=top, centers=torch.zeros(2, 6, 3))]
    expected = {
        "sum": top.mean(1) + top.amax(1), "apart": torch.cat([top.mean(1), top[:, 1:].amax(1)], dim=-1),
        "max": top.amax(1), "mean": top.mean(1),
    }  # fmt: skip
    for pooling, feature in expected.items():
        encoder = build_encoder("point_m2ae_tiny", pooling=pooling)
        assert torch.allclose(encoder.pool(tokens), feature)
        assert encoder.global_dim == feature.shape[1]
    with pytest.raises(ParamsError, match="unknown pooling 'maxx'; known: sum, apart, max, mean, class_token"):
        build_encoder("point_m2ae_tiny", pooling="maxx")


@pytest.mark.parametrize("local", [False, True])
def test_class_token_equals_a_token_at_the_origin_computed_by_hand(local: bool) -> None:
    """It sees all tokens and is seen by all, at every scale; the next scale merges copies of it."""
    encoder = point_m2ae_tiny(pooling="class_token", local_attention=local).eval()
    groups = encoder.group(torch.randn(2, 160, 3))
    assert encoder.cls_token is not None
    summary, finer = encoder.cls_token.expand(2, -1, -1), torch.empty(0)
    for scale, level in enumerate(groups):
        embed, number = encoder.token_embeds[scale], level.centers.shape[1]
        raw = embed(level.neighborhood if scale == 0 else gather_points(finer, level.index))
        summary = summary if scale == 0 else embed(summary.unsqueeze(2))
        position = encoder.position_embeds[scale](torch.cat([level.centers, torch.zeros(2, 1, 3)], dim=1))
        blocked = torch.zeros(2, number + 1, number + 1, dtype=torch.bool)
        if local:
            blocked[:, :-1, :-1] = torch.cdist(level.centers, level.centers) >= RADII[1 + scale]
        encoded = encoder.transformers[scale](torch.cat([raw, summary], dim=1), position, blocked)
        finer, summary = encoded[:, :-1], encoded[:, -1:]
    found = encoder(groups)
    assert torch.allclose(encoder.pool(found), encoder.norms[-1](summary).squeeze(1), atol=1e-5)
    assert torch.allclose(found[-1].tokens, encoder.norms[-1](finer), atol=1e-5)


def test_class_token_depends_on_visible_patches_alone() -> None:
    encoder = point_m2ae_tiny(pooling="class_token").eval()
    groups = encoder.group(torch.randn(2, 160, 3))
    masks = multi_scale_mask(groups, torch.arange(32).expand(2, 32) % 4 > 0)
    feature = encoder.pool(encoder(groups, masks))
    encoder.embed_visible_only = True
    assert torch.allclose(encoder.pool(encoder(groups, masks)), feature, atol=1e-5)
    encoder.embed_visible_only = False
    hidden, seen = groups[0].neighborhood.clone(), groups[0].neighborhood.clone()
    hidden[masks[0]] += 1.0
    seen[~masks[0]] += 1.0
    others = [[replace(groups[0], neighborhood=points), *groups[1:]] for points in (hidden, seen)]
    assert torch.equal(encoder.pool(encoder(others[0], masks)), feature)
    assert not torch.allclose(encoder.pool(encoder(others[1], masks)), feature, atol=1e-3)


def test_class_token_is_added_to_pretrained_weights_in_finetuning(tmp_path: Path) -> None:
    save_encoder(
        tmp_path, point_m2ae_tiny(), builder="point_m2ae_tiny", builder_args={}, method="m2ae", labels="none",
        num_points=160, data_digest=None, params={},
    )  # fmt: skip
    encoder = tuned_encoder(tmp_path, {"pooling": "class_token"})
    assert isinstance(encoder, PointM2AEEncoder)
    encoder.pool(encoder(encoder.group(torch.randn(2, 160, 3)))).square().sum().backward()
    without = [name for name, parameter in encoder.named_parameters() if parameter.grad is None]
    assert without == [f"norms.{scale}.{kind}" for scale in (0, 1) for kind in ("weight", "bias")]


def test_visible_tokens_find_their_way_back() -> None:
    hidden = torch.tensor([[True, False, True, False, False], [True, True, False, True, True]])
    slots = visible_slots(hidden)
    assert slots.index[0].tolist() == [1, 3, 4]
    assert int(slots.index[1, 0]) == 2
    assert slots.valid is not None
    assert slots.valid.tolist() == [[True, True, True], [True, False, False]]
    values = torch.arange(30.0).view(2, 5, 3)
    background = torch.full((2, 5, 3), -1.0)
    found = put_back(background, gather_points(values, slots.index) * 2, slots)
    assert torch.equal(found, torch.where(hidden.unsqueeze(-1), background, values * 2))


def test_scales_that_do_not_fit_each_other_are_refused() -> None:
    arguments = {
        "dims": (8, 16), "depth": 1, "num_heads": 2, "embed_hidden": (8, 16), "drop_path": 0.0, "radii": None,
        "pooling": "sum", "init": "xavier", "skip_near_origin": 0.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="one value per scale"):
        PointM2AEEncoder(num_groups=(8, 4, 2), group_sizes=(4, 4), **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot have more patches than the finer one"):
        PointM2AEEncoder(num_groups=(4, 8), group_sizes=(4, 4), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("scales", "groups", "dims"), [(1, (32,), (192,)), (2, (64, 32), (96, 192))])
def test_fewer_scales_are_the_coarsest_ones(scales: int, groups: tuple[int, ...], dims: tuple[int, ...]) -> None:
    encoder = point_m2ae_tiny(scales=scales, point_group_size=12, local_attention=True).eval()
    assert (encoder.num_groups, encoder.dims) == (groups, dims)
    assert encoder.radii == RADII[-scales:]
    coord = torch.randn(2, 96, 3)
    feature = encoder.pool(encoder(encoder.group(coord)))
    assert feature.shape == (2, 192)
    assert [level.neighborhood.shape[2] for level in encoder.group(coord)] == [12, 8][:scales]


def test_fourth_scale_is_finer_than_the_three_of_the_paper() -> None:
    three, four = point_m2ae_tiny(), point_m2ae_tiny(scales=4)
    assert four.num_groups == (256, *three.num_groups)
    assert four.dims == (24, *three.dims)
    with pytest.raises(ParamsError, match="scales must be 1 to 4, got 5"):
        build_encoder("point_m2ae_tiny", scales=5)

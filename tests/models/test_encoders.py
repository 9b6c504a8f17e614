"""Encoders: shapes, symmetries, protocol, exact rewritings."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pointloom.errors import ParamsError
from pointloom.models import ENCODERS, build_encoder
from pointloom.models.blocks import Attention, DropPath
from pointloom.models.patch_embed import PatchEmbed
from pointloom.structures import Encoder


@pytest.mark.parametrize("name", ["point_mae_tiny", "point_m2ae_tiny", "pointnet"])
def test_features_do_not_depend_on_the_order_of_the_points(name: str) -> None:
    encoder = build_encoder(name).eval()
    assert isinstance(encoder, Encoder)
    coord = torch.randn(2, 128, 3)
    shuffled = torch.cat([coord[:, :1], coord[:, 1:][:, torch.randperm(127)]], dim=1)  # sampling starts at point 0
    first, second = (encoder.pool(encoder(encoder.group(each))) for each in (coord, shuffled))
    assert first.shape == (2, encoder.global_dim)
    assert torch.allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_every_encoder_of_the_table_meets_the_protocol(name: str) -> None:
    encoder = build_encoder(name)
    assert isinstance(encoder, Encoder)
    assert encoder.global_dim % encoder.dims[-1] == 0


def test_published_classifier_has_the_published_parameter_count() -> None:
    encoder = build_encoder("point_mae_small", class_token=True)
    assert sum(p.numel() for p in encoder.parameters()) == 21_825_792


def test_class_token_changes_the_first_half_of_the_pooled_feature() -> None:
    encoder = build_encoder("point_mae_tiny", class_token=True).eval()
    (level,) = encoder(encoder.group(torch.randn(2, 64, 3)))
    assert level.summary is not None
    assert torch.equal(encoder.pool([level])[:, :192], level.summary)


def test_unknown_names_and_arguments_are_errors_that_list_the_known() -> None:
    with pytest.raises(
        ParamsError, match="known: point_m2ae_base, point_m2ae_tiny, point_mae_small, point_mae_tiny, pointnet"
    ):
        build_encoder("point_mea")
    with pytest.raises(ParamsError, match="unexpected keyword argument 'depht'"):
        build_encoder("point_mae_tiny", depht=3)


@pytest.mark.parametrize("training", [True, False])
def test_patch_embedder_equals_its_definition(training: bool) -> None:
    """The plain form: embed, pool, concatenate, embed, pool (Point-MAE, section 3.1)."""
    embed = PatchEmbed(6, hidden=(8, 16)).double().train(training)
    patches = torch.randn(2, 3, 5, 3, dtype=torch.float64)

    def norm(layer: nn.BatchNorm1d, x: torch.Tensor) -> torch.Tensor:
        mean, var = layer.running_mean, layer.running_var
        if training:
            mean, var = x.mean(0), x.var(0, unbiased=False)
        return (x - mean) / (var + layer.eps).sqrt() * layer.weight + layer.bias  # type: ignore[operator]

    points = embed.second(F.relu(norm(embed.norm1, embed.first(patches.view(-1, 3)))))
    pooled = points.view(6, 5, -1).amax(1, keepdim=True).expand(-1, 5, -1).reshape(30, -1)
    joined = embed.third(torch.cat([pooled, points], dim=-1))
    expected = embed.fourth(F.relu(norm(embed.norm2, joined))).view(6, 5, -1).amax(1).view(2, 3, -1)
    assert torch.allclose(embed(patches), expected)


def test_attention_equals_torch() -> None:
    ours = Attention(12, num_heads=3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    q, k, v = ours.qkv(x).view(2, 5, 3, 3, 4).permute(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 5, 12)
    assert torch.allclose(ours(x), ours.proj(expected))


def test_drop_path_keeps_the_mean_and_is_off_outside_of_training() -> None:
    drop = DropPath(0.25)
    x = torch.ones(4000, 1, 1)
    assert drop(x).mean().item() == pytest.approx(1.0, abs=0.05)
    assert drop(x).unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(drop.eval()(x), x)

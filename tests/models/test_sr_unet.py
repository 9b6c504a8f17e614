"""SR-UNet: the published size, features at every resolution, gradients everywhere."""

import pytest
import torch

from pointloom.models import build_scene_encoder
from pointloom.models.sr_unet import SRUNet, sr_unet, sr_unet_tiny
from pointloom.structures import SceneEncoder
from tests.models.scenes import box_scenes


def block(dim: int, out: int) -> int:
    """Weights of two 3^3 convolutions with batch norm, and of the projection where the widths differ."""
    return 27 * out * (dim + out) + 4 * out + (dim * out + 2 * out if dim != out else 0)


def test_published_size_has_the_weights_of_its_description() -> None:
    """SpUNet-v1m1, 39.1 million; the 37.85 million of papers are those of MinkUNet34C, which widens in its blocks."""
    down = [(32, 32, 2), (32, 64, 3), (64, 128, 4), (128, 256, 6)]
    up = [(256, 256, 128), (256, 128, 64), (128, 96, 32), (96, 96, 32)]  # from, to, skip
    expected = 125 * 6 * 32 + 2 * 32
    expected += sum(8 * dim * out + 2 * out + number * block(out, out) for dim, out, number in down)
    expected += sum(8 * dim * out + 2 * out + block(out + skip, out) + block(out, out) for dim, out, skip in up)
    with torch.device("meta"):
        encoder = sr_unet()
    assert sum(p.numel() for p in encoder.parameters()) == expected
    assert expected == pytest.approx(39.2e6, rel=2e-3)
    assert encoder.dims == (96, 96, 128, 256, 256)


def test_features_of_all_resolutions_reach_every_weight() -> None:
    encoder, scenes = build_scene_encoder("sr_unet_tiny", voxel_size=0.1), box_scenes()
    assert isinstance(encoder, SceneEncoder)
    assert isinstance(encoder, SRUNet)
    levels = encoder(scenes)
    assert [level.feature.shape[1] for level in levels] == list(encoder.dims)
    spread = encoder.spread(levels, scenes.coord, scenes.offset)
    assert spread.shape == (500, sum(encoder.dims))
    spread.square().mean().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_features_are_the_same_in_every_run() -> None:
    encoder, scenes = sr_unet_tiny(voxel_size=0.1).eval(), box_scenes()
    assert all(torch.equal(a.feature, b.feature) for a, b in zip(encoder(scenes), encoder(scenes), strict=True))

"""Encoders of objects as seeds of detectors."""

import pytest
import torch

from pointloom.models import build_encoder
from pointloom.models.detr3d import Detr3d
from pointloom.models.detr_loss import AXIS_ALIGNED
from pointloom.models.object_seeds import ObjectSeeds
from tests.tasks.boxed_rooms import boxed_batch, boxed_scene

ENCODERS = {
    "point_mae_tiny": {"num_groups": 48, "group_size": 8, "drop_path": 0.0},
    "point_m2ae_tiny": {"depth": 1, "drop_path": 0.0},
}


def seeds_of(name: str, *, scale: float = 2.0) -> ObjectSeeds:
    return ObjectSeeds(build_encoder(name, **ENCODERS[name]), scale=scale).eval()


@pytest.mark.parametrize("name", ENCODERS)
def test_seeds_are_points_of_the_scene_with_the_tokens_of_all_scales(name: str) -> None:
    encoder, batch = seeds_of(name), boxed_batch(boxed_scene(0), boxed_scene(1))
    seeds = encoder.embed(batch.coord, batch.color, batch.height, batch.normal)
    at_index = batch.coord.gather(1, seeds.index.unsqueeze(-1).expand(-1, -1, 3))
    torch.testing.assert_close(seeds.coord, at_index, atol=1e-5, rtol=0)
    assert seeds.feature.shape == (2, len(seeds.index[0]), encoder.dim)
    tokens = encoder.encoder(encoder.encoder.group(batch.coord / 2))
    finest = tokens[0].tokens
    torch.testing.assert_close(seeds.feature[..., : finest.shape[-1]], finest)
    if len(tokens) > 1:  # a coarse centre is a fine one too: there its own token is found
        coarse = tokens[1]
        distance = torch.cdist(coarse.centers * 2, seeds.coord)
        assert distance.amin(-1).max() < 1e-3
        own = seeds.feature[..., finest.shape[-1] : finest.shape[-1] + coarse.tokens.shape[-1]]
        index = distance.argmin(-1)
        torch.testing.assert_close(
            own.gather(1, index.unsqueeze(-1).expand(-1, -1, own.shape[-1])), coarse.tokens, atol=1e-3, rtol=1e-3
        )


def test_scale_makes_objects_of_parts_of_scenes() -> None:
    """A scene twice as large, taken at twice the scale, has the same seeds in twice the place."""
    batch = boxed_batch(boxed_scene(0))
    small, large = seeds_of("point_mae_tiny", scale=1.0), seeds_of("point_mae_tiny", scale=2.0)
    large.load_state_dict(small.state_dict())
    first = small.embed(batch.coord, batch.color, batch.height, batch.normal)
    second = large.embed(2 * batch.coord, batch.color, batch.height, batch.normal)
    torch.testing.assert_close(second.coord, 2 * first.coord)
    torch.testing.assert_close(second.feature, first.feature)
    with pytest.raises(ValueError, match="above 0 metres"):
        seeds_of("point_mae_tiny", scale=0.0)


@pytest.mark.parametrize("name", ENCODERS)
def test_3detr_trains_through_an_encoder_of_objects(name: str) -> None:
    encoder = seeds_of(name).train()
    model = Detr3d(encoder, num_classes=2, num_headings=1, weights=AXIS_ALIGNED, num_queries=8, dim=16, depth=1,
                   hidden=16, projection=2)  # fmt: skip
    model(boxed_batch(boxed_scene(0), boxed_scene(2)))["loss"].backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []

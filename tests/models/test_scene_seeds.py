"""Encoders of whole scenes as seeds of detectors: HUNet and Point Transformer before 3DETR."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from pointloom.data.box_transforms import flip, turn
from pointloom.data.detection_batches import boxed_points
from pointloom.data.scene_batches import pack, scene_points
from pointloom.models import build_scene_encoder
from pointloom.models.detr3d import Detr3d
from pointloom.models.detr_loss import AXIS_ALIGNED
from pointloom.models.scene_seeds import SceneSeeds
from pointloom.ops.voxels import voxelize
from pointloom.structures import as_module
from tests.tasks.boxed_rooms import Rooms, boxed_batch, boxed_scene

ENCODERS = ("hunet_tiny", "point_transformer_tiny")


def seeds_of(name: str, *, frozen: bool) -> SceneSeeds:
    torch.manual_seed(0)
    return SceneSeeds(build_scene_encoder(name), num_seeds=32, frozen=frozen, dim=24)


def detector(encoder: SceneSeeds) -> Detr3d:
    return Detr3d(encoder, num_classes=2, num_headings=1, weights=AXIS_ALIGNED, num_queries=16, dim=32, depth=1,
                  hidden=32, dropout=0.0, head_dropout=0.0)  # fmt: skip


@pytest.mark.parametrize("name", ENCODERS)
def test_seeds_carry_what_the_encoder_says_of_their_places_in_each_scene_alone(name: str) -> None:
    """All points are given and none shares a voxel, so that the encoder sees what it sees in a batch of scenes."""
    scenes = [boxed_scene(0), boxed_scene(2)]
    rooms = []
    for scene in scenes:
        cell = np.floor((scene.coord - scene.coord.min(0)) / 0.2).astype(int)
        first = np.unique(cell, axis=0, return_index=True)[1]
        keep = np.sort(first)[:200]
        rooms.append(replace(
            scene, coord=(cell[keep] * 0.2 + 0.1).astype(np.float32), segment=scene.segment[keep],
            instance=scene.instance[keep],
        ))  # fmt: skip
    batch = boxed_batch(*rooms, num_points=200)
    encoder = seeds_of(name, frozen=True).eval()
    seeds = encoder.embed(batch.coord, batch.color, batch.height, batch.normal)
    assert seeds.feature.shape == (2, 32, 24)
    torch.testing.assert_close(seeds.coord, batch.coord.gather(1, seeds.index[..., None].expand(-1, -1, 3)))
    for row, room in enumerate(rooms):
        order = voxelize(torch.from_numpy(room.coord), torch.tensor([200]), encoder.voxel_size)[1].numpy()
        assert len(order) == 200
        sampled = replace(room, coord=room.coord[order], segment=room.segment[order], instance=room.instance[order])
        alone = pack([scene_points(sampled)], [0])
        levels = encoder.encoder(alone)
        found = encoder.encoder.spread(levels, seeds.coord[row], torch.tensor([32]))  # type: ignore[operator]
        torch.testing.assert_close(seeds.feature[row], encoder.width(found), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("frozen", [True, False])
def test_loss_of_3detr_falls_and_a_frozen_encoder_stays_bit_by_bit(name: str, frozen: bool) -> None:
    model, batch = detector(seeds_of(name, frozen=frozen)).train(), boxed_batch(boxed_scene(0), num_points=256)
    before = copy.deepcopy(as_module(model.encoder.encoder).state_dict())
    width = model.encoder.width.weight.detach().clone()
    learned = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=5e-3, weight_decay=0)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = model(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    after = model.encoder.encoder.state_dict()
    same = [torch.equal(before[key], after[key]) for key in before]
    assert all(same) if frozen else not any(same[: len(same) // 4])
    assert not torch.equal(width, model.encoder.width.weight)
    assert model.encoder.encoder.training != frozen


def test_normals_are_turned_and_mirrored_with_the_scene_and_matter() -> None:
    scene = boxed_scene(0)
    normal = np.random.default_rng(0).normal(size=scene.coord.shape).astype(np.float32)
    scene = replace(scene, normal=normal / np.linalg.norm(normal, axis=1, keepdims=True))
    points = boxed_points(Rooms(scene), 0)
    mirrored, turned = flip(points, 0), turn(points, np.pi / 2)
    np.testing.assert_array_equal(mirrored.normal, scene.normal * [-1, 1, 1])
    np.testing.assert_allclose(turned.normal[:, 1], scene.normal[:, 0], atol=1e-6)
    batch = boxed_batch(scene)
    encoder = seeds_of("hunet_tiny", frozen=True)
    seen = encoder.embed(batch.coord, batch.color, batch.height, batch.normal).feature
    without = encoder.embed(batch.coord, batch.color, batch.height, torch.zeros_like(batch.normal)).feature
    assert (seen - without).abs().max() > 1e-3

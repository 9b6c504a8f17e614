"""Our HUNet computes what the official one computes, stage by stage: same weights and scene, same features."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pointloom.models.official_names import LAYOUTS, from_official
from pointloom.models.sparse_unet import HUNet
from pointloom.models.voxel_features import as_scene_levels, voxel_input
from pointloom.ops.voxel_levels import VoxelLevels
from pointloom.ops.voxels import voxels_at
from pointloom.structures import SceneBatch

Data = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def small(golden: Path) -> Data:
    with np.load(golden / "msm_small.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def encoder(small: Data) -> HUNet:
    encoder = HUNet(
        voxel_size=0.02, dims=(8, 16, 16, 24, 32), decoder_dims=(8, 16, 16, 24, 32), num_heads=(1, 2, 2, 2, 4),
        convolutions=(1, 1, 1, 1, 1), attentions=(0, 0, 0, 2, 2), window=64, drop_path=0.0, attention_dropout=0.0,
        sampling="legacy",
    ).eval()  # fmt: skip
    layout = LAYOUTS["msm"]
    names = {name: layout.official_name(name) for name in encoder.state_dict()}
    theirs = {key.removeprefix("state/encoder."): value for key, value in small.items() if key.startswith("state/")}
    assert set(names.values()) == set(theirs)
    encoder.load_state_dict(
        {name: from_official(torch.from_numpy(theirs[other]), other, up="z") for name, other in names.items()}
    )
    return encoder


@pytest.fixture(scope="module")
def levels(small: Data) -> tuple[VoxelLevels, torch.Tensor]:
    place = torch.from_numpy(small["in/grid_coord"])
    voxels, order = voxels_at(place, torch.from_numpy(small["in/offset"]), size=0.02)
    return VoxelLevels(voxels, depth=5), torch.from_numpy(small["in/feat"])[order]


def matching(small: Data, name: str, levels: VoxelLevels, number: int) -> torch.Tensor:
    """Return their features in the order of our voxels."""
    index = torch.from_numpy(small[f"{name}{number}/indices"]).long()
    row = levels.voxels[number].find(index[:, 1:], index[:, 0])
    assert sorted(row.tolist()) == list(range(len(levels.voxels[number].key)))
    expected = torch.empty(len(row), small[f"{name}{number}/features"].shape[1])
    expected[row] = torch.from_numpy(small[f"{name}{number}/features"])
    return expected


def test_every_stage_equals_the_official_one(
    encoder: HUNet, levels: tuple[VoxelLevels, torch.Tensor], small: Data
) -> None:
    grid, feature = levels
    with torch.no_grad():
        encoded = encoder.encode(grid, encoder.stem(feature))
        decoded = encoder.decode(grid, encoded)
    for name, ours in (("enc", encoded), ("level", decoded)):
        for number in range(5):
            expected = matching(small, name, grid, number)
            assert (ours[number] - expected).abs().max() <= 1e-4 * expected.abs().max(), (name, number)


def test_voxels_of_the_raw_scene_are_the_official_ones(small: Data) -> None:
    num = len(small["in/coord"])
    scenes = SceneBatch(
        coord=torch.from_numpy(small["in/coord"]),
        color=(torch.from_numpy(small["in/color"]) + 1) / 2,
        normal=torch.from_numpy(small["in/feat"][:, 3:]),
        offset=torch.tensor([num]),
        segment=torch.full((num,), -1),
        instance=torch.full((num,), -1),
        row=torch.zeros(1, dtype=torch.long),
    )
    grid, _, feature = voxel_input(scenes, 0.02, depth=5)
    row = grid.voxels[0].find(torch.from_numpy(small["in/grid_coord"]), torch.zeros(num, dtype=torch.long))
    assert sorted(row.tolist()) == list(range(num))
    torch.testing.assert_close(feature[row], torch.from_numpy(small["in/feat"]), atol=1e-6, rtol=0)


def test_features_of_all_points_equal_the_official_ones(
    encoder: HUNet, levels: tuple[VoxelLevels, torch.Tensor], small: Data
) -> None:
    grid, feature = levels
    query = (torch.from_numpy(small["in/sample_grid_coord"]).float() + 0.5) * 0.02
    with torch.no_grad():
        decoded = as_scene_levels(grid, encoder.decode(grid, encoder.encode(grid, encoder.stem(feature))))
        ours = encoder.spread(decoded, query, torch.from_numpy(small["in/sample_offset"]))
    expected = torch.from_numpy(small["point_features"])
    assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max()

"""Between packed scenes and networks on voxels: what goes in, and features at any point coming out."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointloom.ops.segments import clouds_of
from pointloom.ops.trilinear import sample_voxels
from pointloom.ops.voxel_levels import VoxelLevels
from pointloom.ops.voxels import Voxels, voxelize, voxels_at
from pointloom.structures import SceneBatch, SceneLevel

SAMPLINGS = ("trilinear", "zeros", "legacy")
"""``trilinear``: weights of empty voxels go to the others; ``zeros``: empty voxels count as features of 0; ``legacy``:
as the released code of MSM, whose positions are up to half a voxel off, and whose empty voxels are 0."""


def checked_sampling(sampling: str) -> str:
    """Return the name of a way to sample.

    Raises:
        ValueError: There is no such way.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"unknown sampling {sampling!r}; known: {', '.join(SAMPLINGS)}")
    return sampling


def voxel_input(
    scenes: SceneBatch, voxel_size: float, *, depth: int
) -> tuple[VoxelLevels, Int[Tensor, " v"], Float[Tensor, "v 6"]]:
    """Return the voxels of scenes, the first point in each of the finest ones, its colour in [-1, 1] and its normal."""
    voxels, first, _ = voxelize(scenes.coord, scenes.offset, voxel_size)
    feature = torch.cat([scenes.color[first] * 2 - 1, scenes.normal[first]], dim=-1)
    return VoxelLevels(voxels, depth=depth), first, feature


def as_scene_levels(levels: VoxelLevels, features: Sequence[Float[Tensor, "_ _"]]) -> list[SceneLevel]:
    """Return features of voxels, finest first, with the places where they are."""
    return [
        SceneLevel(coord=voxels.centers, feature=feature, offset=voxels.offset)
        for voxels, feature in zip(levels.voxels, features, strict=True)
    ]


def spread_levels(
    levels: Sequence[SceneLevel],
    coord: Float[Tensor, "q 3"],
    offset: Int[Tensor, " s"],
    *,
    voxel_size: float,
    sampling: str,
) -> Float[Tensor, "q d"]:
    """Interpolate every resolution at points of the same scenes, and concatenate, finest first.

    Args:
        levels: Features at the middles of voxels, each resolution's twice as large as the one before.
        coord: Where features are wanted.
        offset: Where the points of each scene end.
        voxel_size: Edge of the finest voxels.
        sampling: One of ``SAMPLINGS``.
    """
    scene = clouds_of(offset, len(coord))
    origin = _least(levels[0].coord, levels[0].offset) - voxel_size / 2
    relative = (coord - origin[scene]) / voxel_size  # in finest voxels
    sampled = []
    for number, level in enumerate(levels):
        voxels, order = _voxels_of(level, origin, voxel_size * 2**number)
        position = relative / 2**number - 0.5
        if sampling == "legacy":
            extent = _most(voxels)[scene] + 1
            position = (relative.floor() + 0.5) / 2**number * (extent - 1) / extent
        normalize = sampling == "trilinear"
        sampled.append(sample_voxels(level.feature[order], voxels, position, scene, normalize=normalize))
    return torch.cat(sampled, dim=-1)


def _voxels_of(level: SceneLevel, origin: Float[Tensor, "s 3"], size: float) -> tuple[Voxels, Int[Tensor, " v"]]:
    place = (level.coord - origin[clouds_of(level.offset, len(level.coord))]) / size - 0.5
    return voxels_at(place.round().long(), level.offset, size=size, origin=origin)


def _least(coord: Float[Tensor, "p 3"], offset: Int[Tensor, " s"]) -> Float[Tensor, "s 3"]:
    scene = clouds_of(offset, len(coord))[:, None].expand(-1, 3)
    return coord.new_zeros(len(offset), 3).scatter_reduce_(0, scene, coord, "amin", include_self=False)


def _most(voxels: Voxels) -> Int[Tensor, "s 3"]:
    scene = voxels.scene[:, None].expand(-1, 3)
    return voxels.coord.new_zeros(len(voxels.offset), 3).scatter_reduce_(0, scene, voxels.coord, "amax")

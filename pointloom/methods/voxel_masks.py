"""What is hidden from a network on voxels, what is cropped, and which voxels of two views are the same place."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointloom.ops import knn_ragged
from pointloom.ops.gather import own_rows
from pointloom.ops.segments import clouds_of, ranks_within
from pointloom.ops.voxels import Voxels


def random_voxels(voxels: Voxels, ratio: float) -> Bool[Tensor, " v"]:
    """Choose a share of the voxels of every scene: at least one, never all; none of a scene that has only one."""
    scene = voxels.scene
    counts = torch.bincount(scene, minlength=len(voxels.offset))
    chosen = (ratio * counts).round().long().clamp(min=torch.ones_like(counts), max=counts - 1)
    noise = own_rows(lambda rows: torch.rand(rows, device=scene.device), len(scene))
    return ranks_within(noise, scene) < chosen[scene]


def random_crops(voxels: Voxels, sizes: Sequence[int]) -> Bool[Tensor, " v"]:
    """Keep, of every scene, as many voxels as ``sizes`` says, those nearest to a random one; all if it has fewer."""
    kept, start = torch.ones(len(voxels.key), dtype=torch.bool, device=voxels.key.device), 0
    draws = own_rows(torch.rand, len(voxels.offset)).tolist()
    for end, size, draw in zip(voxels.offset.tolist(), sizes, draws, strict=True):  # scenes are ragged
        if end - start > size:
            coord = voxels.coord[start:end].float()
            center = coord[int(draw * (end - start))]
            far = (coord - center).square().sum(-1).topk(end - start - size).indices
            kept[start + far] = False
        start = end
    return kept


def other_views(
    place: Float[Tensor, "q 3"],
    offset: Int[Tensor, " s"],
    other_place: Float[Tensor, "p 3"],
    other_offset: Int[Tensor, " s"],
) -> tuple[Int[Tensor, " q"], Float[Tensor, " q"]]:
    """Find, for voxels of both views of S scenes, the nearest voxel of the other view of the same scene.

    Args:
        place: Where the voxels are, in coordinates that both views share.
        offset: Where those of each view end, the two views of a scene side by side.
        other_place: Where the voxels are that may be found, both views likewise.
        other_offset: Where those of each view end.

    Returns:
        Rows of ``other_place``, and distances.
    """
    partner = clouds_of(other_offset, len(other_place)) ^ 1
    swapped = partner.argsort(stable=True)
    index = knn_ragged(place, offset, other_place[swapped], partner.bincount().cumsum(0), 1).squeeze(1)
    row = swapped[index]
    return row, (place - other_place[row]).norm(dim=-1)

"""Where a point network for scenes looks: levels of farthest points and their neighbours, without gradient."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointloom.ops import farthest_point_sampling_ragged, knn_ragged, nearest_weights
from pointloom.ops.segments import clouds_of


@dataclass(frozen=True)
class Neighbors:
    """Nearest points of some places.

    Attributes:
        index: Rows of the points.
        relative: Their coordinates from the place.
    """

    index: Int[Tensor, "p k"]
    relative: Float[Tensor, "p k 3"]


@dataclass(frozen=True)
class GeometryLevel:
    """One resolution of packed scenes.

    Attributes:
        coord: Places of this level.
        offset: Where each scene ends.
        near: Neighbours within the level.
    """

    coord: Float[Tensor, "p 3"]
    offset: Int[Tensor, " s"]
    near: Neighbors


@dataclass(frozen=True)
class Transition:
    """How a level and the next coarser one look at each other.

    Attributes:
        finer: For every place of the coarser level its neighbours in the finer one.
        coarser: For every place of the finer level the three nearest of the coarser one.
        weight: How much those three count; they sum to 1.
    """

    finer: Neighbors
    coarser: Int[Tensor, "q 3"]
    weight: Float[Tensor, "q 3"]


@torch.no_grad()
def scene_geometry(
    coord: Float[Tensor, "p 3"], offset: Int[Tensor, " s"], *, strides: Sequence[int], num_neighbors: Sequence[int]
) -> tuple[list[GeometryLevel], list[Transition]]:
    """Thin packed scenes out by farthest point sampling and find all neighbours that the network will read.

    Args:
        coord: Points of the scenes, the finest level.
        offset: Where each scene ends.
        strides: For every further level: of how many points of the finer one a place remains (rounded down, at least
            one per scene).
        num_neighbors: For every level the neighbours of a place, itself included; scenes with fewer repeat them.

    Returns:
        The levels, finest first, and what lies between each and the next.

    Note:
        Farthest points of farthest points are the first of them, so one sampling of the finest level serves all.
    """
    coord = coord.float()
    levels = [GeometryLevel(coord, offset, _neighbors(coord, offset, coord, offset, num_neighbors[0]))]
    transitions = []
    sizes = offset.diff(prepend=offset.new_zeros(1))
    for stride, k in zip(strides, num_neighbors[1:], strict=True):
        finer = levels[-1]
        sizes = (sizes // stride).clamp_min(1)
        sampled = len(levels) > 1
        chosen = _firsts(finer.offset, sizes) if sampled else farthest_point_sampling_ragged(coord, offset, sizes)
        places, ends = finer.coord[chosen], sizes.cumsum(0)
        coarser, weight = nearest_weights(finer.coord, finer.offset, places, ends)
        levels.append(GeometryLevel(places, ends, _neighbors(places, ends, places, ends, k)))
        transitions.append(Transition(_neighbors(places, ends, finer.coord, finer.offset, k), coarser, weight))
    return levels, transitions


def _neighbors(
    query: Float[Tensor, "q 3"],
    query_offset: Int[Tensor, " s"],
    coord: Float[Tensor, "p 3"],
    offset: Int[Tensor, " s"],
    k: int,
) -> Neighbors:
    index = knn_ragged(query, query_offset, coord, offset, k, repeat=True)
    return Neighbors(index=index, relative=coord[index] - query.unsqueeze(1))


def _firsts(offset: Int[Tensor, " s"], counts: Int[Tensor, " s"]) -> Int[Tensor, " q"]:
    """Return the first rows of every cloud."""
    begin = torch.cat([offset.new_zeros(1), offset[:-1]])
    own_begin = counts.cumsum(0) - counts
    total = int(counts.sum())
    cloud = clouds_of(counts.cumsum(0), total)
    return torch.arange(total, device=offset.device) + (begin - own_begin)[cloud]

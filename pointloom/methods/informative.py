"""Which points of a scene are informative, and masks that keep or drop them (MM-3DScene, section 3.2)."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointloom.ops import knn_ragged
from pointloom.ops.gather import max_over_processes
from pointloom.ops.segments import clouds_of, ranks_within
from pointloom.structures import SceneBatch

Difference = Literal["squared", "norm"]
Normalisation = Literal["scene", "batch"]


@torch.no_grad()
def local_statistic(
    coord: Float[Tensor, "p 3"],
    cues: Sequence[Float[Tensor, "p _"]],
    offset: Int[Tensor, " s"],
    *,
    num_neighbors: int,
    difference: Difference,
    normalisation: Normalisation,
) -> Float[Tensor, " p"]:
    """Return how much every point differs from its neighbours (equation 1).

    Args:
        coord: Metres; says who is a neighbour.
        cues: What is compared: coordinates, colours, embeddings. The statistics of several are added up.
        offset: Where each scene ends.
        num_neighbors: Neighbours that are compared, the point itself included; scenes with fewer points repeat them.
        difference: ``squared``: squared differences (official code); ``norm``: lengths of differences (paper).
        normalisation: The statistic of every cue is brought to [0, 1] by its smallest and largest value, within each
            ``scene`` or over the whole ``batch`` (official code).

    Returns:
        Between 0 and the number of cues.
    """
    index = knn_ragged(coord, offset, coord, offset, num_neighbors, repeat=True)
    scene = clouds_of(offset, len(coord))
    statistics = [_normalised(_differences(cue.float(), index, difference), scene, normalisation) for cue in cues]
    return torch.stack(statistics).sum(0)


def _differences(cue: Float[Tensor, "p c"], index: Int[Tensor, "p k"], difference: Difference) -> Float[Tensor, " p"]:
    """Add up one neighbour after the other, so that no array of all pairs is made."""
    total = cue.new_zeros(len(cue))
    for neighbor in index.unbind(1):
        squared = (cue[neighbor] - cue).square().sum(1)
        total += squared if difference == "squared" else squared.sqrt()
    return total


def _normalised(
    value: Float[Tensor, " p"], scene: Int[Tensor, " p"], normalisation: Normalisation
) -> Float[Tensor, " p"]:
    group = scene if normalisation == "scene" else torch.zeros_like(scene)
    bound = value.new_zeros(int(group[-1]) + 1)
    low = bound.scatter_reduce(0, group, value, "amin", include_self=False)
    high = bound.scatter_reduce(0, group, value, "amax", include_self=False)
    if normalisation == "batch":
        low, high = -max_over_processes(-low), max_over_processes(high)
    span = (high - low).clamp_min(torch.finfo(value.dtype).tiny)
    return (value - low[group]) / span[group]


def keep_highest(
    score: Float[Tensor, " p"], offset: Int[Tensor, " s"], ratio: Float[Tensor, " s"]
) -> Bool[Tensor, " p"]:
    """Mark a share of every scene's points, rounded down but at least one, those with the highest scores.

    Masks of the same scores with smaller ratios are subsets; of equal scores the earlier rows go first.
    """
    scene = clouds_of(offset, len(score))
    sizes = offset.diff(prepend=offset.new_zeros(1))
    count = (ratio * sizes).long().clamp_min(1)
    return ranks_within(score, scene) < count[scene]


def select(scenes: SceneBatch, keep: Bool[Tensor, " p"]) -> SceneBatch:
    """Return the marked points of packed scenes, in their order."""
    counts = torch.zeros_like(scenes.offset).index_add(0, clouds_of(scenes.offset, len(keep)), keep.to(scenes.offset))
    return SceneBatch(
        coord=scenes.coord[keep],
        color=scenes.color[keep],
        normal=scenes.normal[keep],
        offset=counts.cumsum(0),
        segment=scenes.segment[keep],
        instance=scenes.instance[keep],
        row=scenes.row,
    )

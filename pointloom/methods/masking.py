"""Which patches a method hides. A mask is True where a patch is hidden from the encoder."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pointloom.ops import gather_points, knn, own_rows
from pointloom.ops.gather import first_own_row
from pointloom.structures import Groups


def random_mask(centers: Float[Tensor, "b g 3"], *, ratio: float) -> Bool[Tensor, "b g"]:
    """Hide ``int(ratio * g)`` patches of every cloud, chosen uniformly (Point-MAE, section 3.1)."""
    B, G, _ = centers.shape
    order = own_rows(lambda rows: torch.rand(rows, G, device=centers.device), B).argsort(1)
    return order < int(ratio * G)


def block_mask(centers: Float[Tensor, "b g 3"], *, ratio: float) -> Bool[Tensor, "b g"]:
    """Hide the ``int(ratio * g)`` patches nearest to a random patch, itself included (Point-MAE, section 4.4)."""
    B, G, _ = centers.shape
    seed = own_rows(lambda rows: torch.randint(G, (rows, 1), device=centers.device), B)
    nearest = knn(gather_points(centers, seed), centers, int(ratio * G)).squeeze(1)
    return torch.zeros(B, G, dtype=torch.bool, device=centers.device).scatter(1, nearest, True)


def visible_points(groups: Groups, hidden: Bool[Tensor, "b g"], *, num_points: int) -> Bool[Tensor, "b n"]:
    """Return which of the ``num_points`` points that were cut into patches lie in a patch that is not hidden."""
    visible = torch.zeros(len(hidden), num_points + 1, dtype=torch.bool, device=hidden.device)
    shown = torch.where(hidden.unsqueeze(-1), num_points, groups.index).flatten(1)  # one more place for hidden ones
    return visible.scatter_(1, shown, True)[:, :num_points]


def multi_scale_mask(
    groups: list[Groups], hidden: Bool[Tensor, "b g"], *, first_always_visible: bool = False
) -> list[Bool[Tensor, "b _"]]:
    """Project a mask of the coarsest patches back: the members of a visible patch are visible (Point-M2AE, 3.1).

    Args:
        groups: Patches of all scales, finest first; those of a scale consist of the centres of the finer one.
        hidden: Which patches of the coarsest scale are hidden.
        first_always_visible: Patch 0 of the first cloud is visible at all finer scales, as in the official code, where
            hidden patches contribute index 0 of the flattened batch to the projection.

    Returns:
        One mask per scale, finest first; clouds differ in the number of visible patches, except at the coarsest scale.
    """
    masks = [hidden]
    for finer, level in zip(reversed(groups[:-1]), reversed(groups), strict=False):
        shown = visible_points(level, masks[0], num_points=finer.centers.shape[1])
        if first_always_visible and first_own_row(len(shown)) == 0:
            shown[0, 0] = True
        masks.insert(0, ~shown)
    return masks


def visible_bounds(
    num_groups: Sequence[int], group_sizes: Sequence[int], *, ratio: float, multi_scale: bool = True
) -> list[tuple[int, int]]:
    """Return the fewest and the most patches of a cloud that masks leave visible, as is known before they are drawn.

    Args:
        num_groups: Patches per scale, finest first.
        group_sizes: Members of a patch per scale.
        ratio: Share of hidden patches at the coarsest scale.
        multi_scale: Whether finer masks follow from the coarsest; False for ``independent_masks``.
    """
    exact = [(number - int(ratio * number),) * 2 for number in num_groups]
    if not multi_scale:
        return exact
    bounds = exact[-1:]
    for number, size in zip(reversed(num_groups[:-1]), reversed(group_sizes), strict=False):
        bounds.insert(0, (0, min(number, bounds[0][1] * size + 1)))  # one more: patch 0 of the official code
    return bounds


def independent_masks(groups: list[Groups], *, ratio: float) -> list[Bool[Tensor, "b _"]]:
    """Hide the same share of patches at every scale, each drawn on its own (ablation of Point-M2AE, table 8)."""
    return [random_mask(level.centers, ratio=ratio) for level in groups]


MASKS = {"random": random_mask, "block": block_mask}

"""Masked Scene Contrast (Wu et al., 2023): contrast of two views with holes, and the colours of what is hidden."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.methods.voxel_masks import other_views, random_crops
from pointloom.models.sparse_unet import HUNet
from pointloom.models.sr_unet import SRUNet
from pointloom.ops.gather import first_own_row, gather_rows, gather_values, own_rows, share_of_mean
from pointloom.ops.pca_colors import pca_colors
from pointloom.ops.segments import clouds_of, ranks_within
from pointloom.ops.voxels import voxelize
from pointloom.structures import Losses, SceneBatch, SceneViews

_UNKNOWN = 1e-6  # squared length below which a normal is none


class MSC(nn.Module):
    """Hide disjoint parts of two views, tell corresponding voxels from all others, and guess colours and normals.

    Args:
        encoder: What is pre-trained; its finest features are used.
        view_share: Share of a view's voxels that is kept, those nearest to a random one (0.6).
        mask_ratio: Share of the patches that is hidden in each view (0.4).
        patch_size: Edge of a patch in metres, on a grid that both views share (0.1).
        radius: Voxels of two views nearer than this are the same place, metres (0.03).
        max_pairs: Pairs that are contrasted at most (8,192).
        temperature: Of the contrast (0.4).
        normals: Whether normals are guessed beside colours.

    Note:
        Values in brackets are Pointcept's. It draws one of up to 8 neighbours within the radius, here it is the
        nearest; it overlays two scenes in the first view with probability 0.8, here no scenes are mixed.

    Raises:
        ValueError: A share is out of range.
    """

    def __init__(
        self,
        encoder: HUNet | SRUNet,
        *,
        view_share: float,
        mask_ratio: float,
        patch_size: float,
        radius: float,
        max_pairs: int,
        temperature: float,
        normals: bool,
    ) -> None:
        super().__init__()
        if not 0 < view_share <= 1 or not 0 < mask_ratio <= 0.5:
            raise ValueError(f"view_share must be in (0, 1] and mask_ratio in (0, 0.5], got {view_share}, {mask_ratio}")
        self.encoder = encoder
        self.view_share = view_share
        self.mask_ratio = mask_ratio
        self.patch_size = patch_size
        self.radius = radius
        self.max_pairs = max_pairs
        self.temperature = temperature
        self.token = nn.Parameter(0.02 * torch.randn(6))
        self.color_head = nn.Linear(encoder.dims[0], 3)
        self.normal_head = nn.Linear(encoder.dims[0], 3) if normals else None

    def forward(self, batch: SceneViews) -> Losses:
        """Contrast between the views plus errors of what is guessed at hidden voxels."""
        full, point, feature = self.encoder.voxelize(batch.scenes)
        sizes = torch.bincount(full.voxels[0].scene)
        kept = random_crops(full.voxels[0], (sizes * self.view_share).long().clamp_min(1).tolist())
        levels, place, feature = full.subset(kept), batch.place[point][kept], feature[kept]
        offset = levels.voxels[0].offset
        hidden = self.hide(place, offset)
        shown = torch.where(hidden[:, None], self.token, feature)
        found = self.encoder.features(levels, shown)[0].float()
        losses = {"loss/contrast": self.contrast(found, place, offset)}
        guess, color = self.color_head(found[hidden]), feature[hidden, :3]
        losses["loss/color"] = share_of_mean((guess - color).square().sum() / max(color.numel(), 1), count=len(color))
        if self.normal_head is not None:
            losses["loss/normal"] = _normal_error(self.normal_head(found[hidden]), feature[hidden, 3:])
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    @torch.no_grad()
    def hide(self, place: Float[Tensor, "v 3"], offset: Int[Tensor, " s"]) -> Bool[Tensor, " v"]:
        """Choose patches of both views' common grid: some for each view, none for both."""
        patches, _, patch = voxelize(place, offset[1::2], self.patch_size)
        counts = torch.bincount(patches.scene)
        noise = own_rows(lambda rows: torch.rand(rows, device=place.device), len(patches.key))
        rank = ranks_within(noise, patches.scene)
        number = (counts * self.mask_ratio).round().long().clamp_min(1)[patches.scene]
        turn = torch.where(rank < number, 0, torch.where(rank < 2 * number, 1, 2))  # view in which a patch is hidden
        return turn[patch] == clouds_of(offset, len(place)) % 2

    def contrast(
        self, feature: Float[Tensor, "v c"], place: Float[Tensor, "v 3"], offset: Int[Tensor, " s"]
    ) -> Float[Tensor, ""]:
        """Tell the same place in the other view from all other places that are looked at."""
        row, distance = other_views(place, offset, place, offset)
        first = clouds_of(offset, len(place)) % 2 == 0
        index = (first & (distance < self.radius)).nonzero().squeeze(1)
        noise = own_rows(lambda rows: torch.rand(rows, device=index.device), len(index))
        everyones = gather_values(noise)
        if len(everyones) > self.max_pairs:
            index = index[noise <= everyones.kthvalue(self.max_pairs).values]
        here, there = F.normalize(feature[index], dim=-1), F.normalize(feature[row[index]], dim=-1)
        own = first_own_row(len(index)) + torch.arange(len(index), device=index.device)
        error = F.cross_entropy(here @ gather_rows(there).t() / self.temperature, own, reduction="sum")
        return share_of_mean(error / max(len(index), 1), count=len(index))

    @torch.no_grad()
    def look(self, scenes: SceneBatch) -> dict[str, Tensor]:
        """Return the features of points as colours, for looking at."""
        return {"pca": pca_colors(self.encoder.spread(self.encoder(scenes), scenes.coord, scenes.offset))}


def _normal_error(guess: Float[Tensor, "n 3"], normal: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """Return one minus the cosine, where there is a normal."""
    known = normal.square().sum(-1) > _UNKNOWN
    error = 1 - F.cosine_similarity(guess, normal, dim=-1)
    count = int(known.sum())
    return share_of_mean((error * known).sum() / max(count, 1), count=count)

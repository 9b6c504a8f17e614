"""Masked Scene Modeling (MSM): reconstruct a teacher's features of hidden voxels, at every resolution of a U-Net."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.methods.voxel_masks import other_views, random_crops, random_voxels
from pointloom.models.ema import EmaTeacher
from pointloom.models.sparse_unet import HUNet
from pointloom.ops.gather import share_of_mean, sum_over_processes
from pointloom.ops.pca_colors import pca_colors
from pointloom.ops.voxel_levels import VoxelLevels
from pointloom.structures import Losses, SceneBatch, SceneViews

MASKS = ("bottom_up", "top_down", "none")


class MSM(nn.Module):
    """Show a student a crop of a scene with large holes; it guesses what a teacher says of the holes in another view.

    Args:
        encoder: What is pre-trained, the student; encoder and decoder.
        mask: ``bottom_up``: hidden voxels are taken away from the student's encoder and come back as tokens at every
            resolution of its decoder (the method). Of table 10: ``top_down``: they stay, as one token instead of the
            input; ``none``: nothing is hidden, all voxels are guessed.
        mask_ratio: Share of the occupied coarsest voxels that is hidden (0.4 in the paper).
        mask_shared: Hide the same places in both views, as far as both crops have them; False: every view has holes of
            its own.
        crop_points: Voxels of a crop, those nearest to a random one.
        loss_levels: Resolutions that are guessed, 1 is the finest; all of them in the paper.
        target_norm: ``layernorm`` normalises the teacher's features per voxel.
        momentum: First momentum of the teacher; it rises to 1 along a cosine.
        total_steps: Length of the training, for the momentum.

    Note:
        The training code was never released. Matching of the views, predictors, momentum, crop and reduction of the
        loss are not described in the paper; docs/methods/msm.md lists what was chosen, and why.

    Raises:
        ValueError: A value is out of range.
    """

    step: Tensor

    def __init__(
        self,
        encoder: HUNet,
        *,
        mask: str,
        mask_ratio: float,
        mask_shared: bool,
        crop_points: int,
        loss_levels: Sequence[int],
        target_norm: Literal["none", "layernorm"],
        momentum: float,
        total_steps: int,
    ) -> None:
        super().__init__()
        depth = len(encoder.dims)
        if not loss_levels or not set(loss_levels) <= set(range(1, depth + 1)):
            raise ValueError(f"loss_levels must be some of 1..{depth}, the finest is 1; got {list(loss_levels)}")
        if mask not in MASKS:
            raise ValueError(f"unknown mask {mask!r}; known: {', '.join(MASKS)}")
        if not 0 < mask_ratio < 1 or not 0 <= momentum <= 1 or total_steps < 1 or crop_points < 1:
            raise ValueError("mask_ratio must be in (0, 1), momentum in 0..1, total_steps and crop_points at least 1")
        self.encoder = encoder
        self.mask = mask
        self.mask_ratio = mask_ratio
        self.mask_shared = mask_shared
        self.crop_points = crop_points
        self.levels = tuple(level - 1 for level in sorted(set(loss_levels)))
        self.target_norm = target_norm
        self.momentum = momentum
        self.total_steps = total_steps
        self.teacher = EmaTeacher(encoder, buffers="none", always_evaluate=True)
        widths = {"bottom_up": encoder.encoder_dims, "top_down": encoder.encoder_dims[:1], "none": ()}[mask]
        self.tokens = nn.ParameterList(nn.Parameter(0.02 * torch.randn(width)) for width in widths)
        self.predictors = nn.ModuleDict({str(i): _predictor(encoder.dims[i]) for i in self.levels})
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(self, batch: SceneViews) -> Losses:
        """Equation 2: sum over resolutions of the mean absolute difference at hidden voxels, both ways."""
        full, feature, place = self.voxelize(batch)
        kept = random_crops(full.voxels[0], [self.crop_points] * len(full.voxels[0].offset))
        crop = full.subset(kept)
        places, crop_places = full.means(place), crop.means(place[kept])
        hidden = self.hide(crop, crop_places[-1])
        _, decoded = self.student(crop, feature[kept], hidden)
        taught = self.teach(full, feature)
        losses: Losses = {}
        for i in self.levels:
            row, distance = other_views(
                crop_places[i], crop.voxels[i].offset, places[i], full.voxels[i].offset
            )  # the same place in the other view, which the teacher saw as a whole
            used = distance < full.voxels[i].size
            if self.mask != "none":
                used &= hidden[i]
            guess, target = self.predictors[str(i)](decoded[i][used]), taught[i][row[used]]
            difference = (guess.float() - target).abs().sum() / max(target.numel(), 1)
            losses[f"loss/level{i + 1}"] = share_of_mean(difference, count=target.numel())
        total = torch.stack(list(losses.values())).sum()
        return {"loss": total, **losses, **{f"std/level{i + 1}": _deviation(taught[i]) for i in self.levels}}

    def voxelize(self, batch: SceneViews) -> tuple[VoxelLevels, Float[Tensor, "v 6"], Float[Tensor, "v 3"]]:
        """Return the voxels of all views, the input of the finest ones, and their places before the change."""
        levels, point, feature = self.encoder.voxelize(batch.scenes)
        return levels, feature, batch.place[point]

    @torch.no_grad()
    def hide(self, crop: VoxelLevels, coarsest_place: Float[Tensor, "v 3"]) -> list[Bool[Tensor, " _"]]:
        """Choose coarsest voxels, and everything inside of them at all resolutions; the finest come first."""
        coarsest = crop.voxels[-1]
        chosen = random_voxels(coarsest, self.mask_ratio)
        if self.mask_shared:  # where the first view has something; elsewhere the second has holes of its own
            row, distance = other_views(coarsest_place, coarsest.offset, coarsest_place, coarsest.offset)
            shared = torch.where((coarsest.scene % 2 == 1) & (distance < coarsest.size), chosen[row], chosen)
            seen = torch.bincount(coarsest.scene[~shared], minlength=len(coarsest.offset)) > 0
            chosen = torch.where(seen[coarsest.scene], shared, chosen)  # a view without a visible voxel is none
        return crop.spread_down(chosen)

    def student(
        self, crop: VoxelLevels, feature: Float[Tensor, "v 6"], hidden: Sequence[Bool[Tensor, " _"]]
    ) -> tuple[list[Float[Tensor, "_ _"]], list[Float[Tensor, "_ _"]]]:
        """Return the encoder's features, of visible voxels only if the rest is taken away, and the decoder's of all."""
        embedded = self.encoder.stem(feature)
        if self.mask == "bottom_up":
            visible = ~hidden[0]
            seen = self.encoder.encode(crop.subset(visible), embedded[visible])
            filled = [
                _with_token(rows, mask, token) for rows, mask, token in zip(seen, hidden, self.tokens, strict=True)
            ]
            return seen, self.encoder.decode(crop, filled)
        if self.mask == "top_down":
            embedded = torch.where(hidden[0][:, None], self.tokens[0].to(embedded.dtype), embedded)
        seen = self.encoder.encode(crop, embedded)
        return seen, self.encoder.decode(crop, seen)

    @torch.no_grad()
    def teach(self, full: VoxelLevels, feature: Float[Tensor, "v 6"]) -> list[Float[Tensor, "_ _"]]:
        """Return the teacher's features of whole views."""
        network = self.teacher.network
        assert isinstance(network, HUNet)
        taught = network.features(full, feature)
        if self.target_norm == "layernorm":
            return [F.layer_norm(rows.float(), rows.shape[-1:]) for rows in taught]
        return [rows.float() for rows in taught]

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher along; its momentum rises to 1 along half a cosine."""
        done = min(int(self.step) / self.total_steps, 1.0)
        self.teacher.update(self.encoder, 1 - (1 - self.momentum) * (math.cos(math.pi * done) + 1) / 2)
        self.step += 1

    @torch.no_grad()
    def look(self, scenes: SceneBatch) -> dict[str, Tensor]:
        """Return the features of points as colours, for looking at."""
        feature = self.encoder.spread(self.encoder(scenes), scenes.coord, scenes.offset)
        return {"pca": pca_colors(feature)}


def _predictor(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))


@torch.no_grad()
def _deviation(rows: Float[Tensor, "v c"]) -> Float[Tensor, ""]:
    """Return the mean over channels of the standard deviation over the rows of all processes."""
    count = sum_over_processes(torch.full((), float(len(rows)), device=rows.device))
    mean = sum_over_processes(rows.sum(0)) / count
    squares = sum_over_processes((rows - mean).square().sum(0))
    return (squares / (count - 1).clamp_min(1)).sqrt().mean()


def _with_token(seen: Float[Tensor, "n c"], hidden: Bool[Tensor, " v"], token: Float[Tensor, " c"]) -> Tensor:
    """Put a token where voxels are hidden, between those that were seen, which are in the same order."""
    filled = token.to(seen.dtype).expand(len(hidden), -1)
    return filled.index_copy(0, (~hidden).nonzero().squeeze(1), seen)

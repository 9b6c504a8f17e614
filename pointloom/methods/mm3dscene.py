"""MM-3DScene: informative-preserved masked modelling of indoor scenes (Xu et al., 2023)."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.methods.informative import Difference, Normalisation, keep_highest, local_statistic, select
from pointloom.models.coordinate_variation import CoordinateVariation
from pointloom.models.ema import EmaTeacher
from pointloom.ops import chamfer_distance_ragged, nearest_weights, own_rows, share_of_mean, weighted_rows
from pointloom.ops.gather import num_processes
from pointloom.ops.info_nce import info_nce
from pointloom.ops.segments import clouds_of, ranks_within, to_corner
from pointloom.structures import Losses, SceneBatch, SceneEncoder, SceneLevel, as_module

Mask = Literal["preserved", "abandoned", "random"]
Cues = Literal["both", "coord", "color", "embedding"]
EMBEDDING_DIM = 32


@dataclass(frozen=True)
class MaskPlan:
    """Which points student and target see.

    Attributes:
        mask: ``preserved`` keeps the informative points, ``abandoned`` the others, ``random`` any (table 8).
        cues: What the local statistic compares (table 9).
        num_neighbors: Neighbours that are compared, the point itself included.
        difference: ``squared`` differences (official code) or the ``norm`` of differences (paper).
        normalisation: Per ``scene`` or over the ``batch`` (official code).
        keep: Range of the share of points that the student sees, drawn per scene.
        gap: How much larger the target's share is; ``random``: uniform up to the whole scene.
        progressive: False: the target is the whole scene.
    """

    mask: Mask
    cues: Cues
    num_neighbors: int
    difference: Difference
    normalisation: Normalisation
    keep: tuple[float, float]
    gap: float | Literal["random"]
    progressive: bool

    def __post_init__(self) -> None:
        low, high = self.keep
        if not 0 < low <= high <= 1:
            raise ValueError(f"keep is a range of shares in (0, 1], smallest first, got {self.keep}")
        if self.progressive and self.gap != "random" and not 0 < self.gap <= 1 - high + 1e-9:
            raise ValueError(
                f"a gap of {self.gap} beyond {high} of the points leaves the scene; give more than 0 and at most "
                f"{1 - high:g}"
            )
        if self.num_neighbors < 2:
            raise ValueError(f"num_neighbors counts the point itself and must be at least 2, got {self.num_neighbors}")


@dataclass(frozen=True)
class HeadPlan:
    """How places become points; see ``CoordinateVariation``."""

    hidden: int
    grid: tuple[int, int]
    extent: float
    reads_coord: bool


@dataclass(frozen=True)
class Hidden:
    """One draw of masks.

    Attributes:
        statistic: How informative every point is.
        visible: What the student sees.
        target: What it is to restore, and what the teacher sees; a superset.
    """

    statistic: Float[Tensor, " p"]
    visible: Bool[Tensor, " p"]
    target: Bool[Tensor, " p"]


class MM3DScene(nn.Module):
    """Restore a slightly more complete scene from a masked one, and agree with a teacher that sees the former.

    Args:
        encoder: What is pre-trained.
        plan: Which points are hidden.
        head: Shape of the completion heads, one per level of the encoder.
        reconstruction_weight: Of equation 3; 0 leaves the heads out (table 7, iii).
        consistency_weight: Of equation 5; 0 leaves the teacher out (table 7, ii).
        chamfer: ``mean`` halves the sum of both directions (official code), ``sum`` does not (equation 3).
        cd_reduction: Over the scenes of a batch: ``mean``, or ``sum`` (official code for segmentation).
        temperature: Of equation 5; 0.07 in the official code, 1 in the paper.
        max_samples: Points per scene and level that are compared with each other (4096 in the official code).
        momentum: Share of the teacher's old weights that stays at every step (equation 4; 0.99 in the official code).

    Note:
        Levels below the finest lie on farthest points of different point sets in student and teacher, so "the same
        point" (equation 5) does not exist there; as in the official code the teacher's features are interpolated to
        the student's places from the three nearest.

    Raises:
        ValueError: A value is out of range, or both weights are 0.
    """

    def __init__(
        self,
        encoder: SceneEncoder,
        *,
        plan: MaskPlan,
        head: HeadPlan,
        reconstruction_weight: float,
        consistency_weight: float,
        chamfer: Literal["mean", "sum"],
        cd_reduction: Literal["mean", "sum"],
        temperature: float,
        max_samples: int,
        momentum: float,
    ) -> None:
        super().__init__()
        if min(reconstruction_weight, consistency_weight) < 0 or reconstruction_weight + consistency_weight == 0:
            raise ValueError(
                f"the weights of reconstruction and consistency are at least 0 and not both 0, got "
                f"{reconstruction_weight} and {consistency_weight}"
            )
        if not temperature > 0 or max_samples < 2 or not 0 <= momentum <= 1:
            raise ValueError(
                f"temperature is above 0, max_samples at least 2, momentum in 0..1, got {temperature}, {max_samples}, "
                f"{momentum}"
            )
        self.encoder = encoder
        self.plan = plan
        self.weights = reconstruction_weight, consistency_weight
        self.chamfer_factor = 2.0 if chamfer == "sum" else 1.0
        self.cd_reduction = cd_reduction
        self.temperature = temperature
        self.max_samples = max_samples
        self.momentum = momentum
        self.heads = nn.ModuleList(
            CoordinateVariation(
                dim, hidden=head.hidden, grid=head.grid, extent=head.extent, reads_coord=head.reads_coord
            )
            for dim in (encoder.dims if reconstruction_weight > 0 else ())
        )
        self.teacher = (
            EmaTeacher(as_module(encoder), buffers="none", always_evaluate=False) if consistency_weight > 0 else None
        )
        self.embed = _random_embedding() if plan.cues == "embedding" else None

    def forward(self, scenes: SceneBatch) -> Losses:
        """Section 3.3: the weighted sum of reconstruction and consistency."""
        scenes = at_corner(scenes)
        drawn = self.hide(scenes)
        target = select(scenes, drawn.target)
        levels = self.encoder(select(scenes, drawn.visible))
        losses: Losses = {}
        if self.weights[0] > 0:
            losses["loss/reconstruction"] = self.weights[0] * self.reconstruction(levels, target)
        if self.weights[1] > 0:
            losses["loss/consistency"] = self.weights[1] * self.consistency(levels, target)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    @torch.no_grad()
    def hide(self, scenes: SceneBatch) -> Hidden:
        """Draw how much of every scene is shown, and mark the points by their statistic (section 3.2)."""
        plan, offset, device = self.plan, scenes.offset, scenes.coord.device
        statistic = local_statistic(
            scenes.coord,
            self._cues(scenes),
            offset,
            num_neighbors=plan.num_neighbors,
            difference=plan.difference,
            normalisation=plan.normalisation,
        )
        score = statistic
        if plan.mask == "random":
            score = own_rows(lambda rows: torch.rand(rows, device=device, dtype=statistic.dtype), len(statistic))
        score = -score if plan.mask == "abandoned" else score
        low, high = plan.keep

        def draw() -> Tensor:
            return own_rows(lambda rows: torch.rand(rows, device=device, dtype=torch.float64), len(offset))

        ratio = low + (high - low) * draw()
        gap = draw() * (1 - ratio) if plan.gap == "random" else torch.full_like(ratio, plan.gap)
        more = (ratio + gap).clamp_max(1.0) if plan.progressive else torch.ones_like(ratio)
        return Hidden(statistic, keep_highest(score, offset, ratio), keep_highest(score, offset, more))

    def _cues(self, scenes: SceneBatch) -> list[Tensor]:
        if self.embed is not None:
            return [self.embed(torch.cat([scenes.coord, scenes.color], dim=1))]
        given = {"coord": [scenes.coord], "color": [scenes.color], "both": [scenes.coord, scenes.color]}
        return given[self.plan.cues]

    def reconstruction(self, levels: list[SceneLevel], target: SceneBatch) -> Float[Tensor, ""]:
        """Sum over levels of the Chamfer distance between predicted points and the target scene (equation 3)."""
        completed = [_complete(head, level) for head, level in zip(self.heads, levels, strict=True)]
        total = torch.stack(
            [chamfer_distance_ragged(*each, target.coord, target.offset, norm=1) for each in completed]
        ).sum(0)
        if self.cd_reduction == "sum":
            return self.chamfer_factor * total.sum() * num_processes()
        return self.chamfer_factor * share_of_mean(total.mean(), count=len(total))

    def consistency(self, levels: list[SceneLevel], target: SceneBatch) -> Float[Tensor, ""]:
        """Sum over levels of the mean over scenes of InfoNCE between student and teacher (equation 5)."""
        assert self.teacher is not None, "a method without consistency has no teacher"
        losses = [
            self._agreement(level, seen) for level, seen in zip(levels, self.teacher(target), strict=True)
        ]  # fmt: skip
        return torch.stack(losses).sum()

    def _agreement(self, level: SceneLevel, seen: SceneLevel) -> Float[Tensor, ""]:
        rows, sizes = _sample(level, self.max_samples)
        index, weight = nearest_weights(level.coord[rows], sizes.cumsum(0), seen.coord, seen.offset)
        goal = F.normalize(weighted_rows(seen.feature, index, weight), dim=1)
        own = F.normalize(level.feature[rows].float(), dim=1)
        pairs = zip(own.split(sizes.tolist()), goal.split(sizes.tolist()), strict=True)  # scenes are of different sizes
        losses = [info_nce(query, key, temperature=self.temperature) for query, key in pairs]
        return share_of_mean(torch.stack(losses).mean(), count=len(losses))

    def after_step(self) -> None:
        """Move the teacher along (equation 4); its batch statistics are its own, as in the official code."""
        if self.teacher is not None:
            self.teacher.update(as_module(self.encoder), self.momentum)

    @torch.no_grad()
    def look(self, scenes: SceneBatch) -> dict[str, Tensor]:
        """Hide a part of scenes and restore it, for looking at; restored points of the finest level."""
        cornered = at_corner(scenes)
        drawn = self.hide(cornered)
        found = {"statistic": drawn.statistic, "visible": drawn.visible, "target": drawn.target}
        if len(self.heads) == 0:
            return found
        points, ends = _complete(self.heads[0], self.encoder(select(cornered, drawn.visible))[0])
        begin = torch.cat([scenes.offset.new_zeros(1), scenes.offset[:-1]])
        corner = (scenes.coord - cornered.coord)[begin]
        return found | {"reconstruction": points + corner[clouds_of(ends, len(points))]}


def at_corner(scenes: SceneBatch) -> SceneBatch:
    """Move every scene so that its lowest corner is the origin."""
    return replace(scenes, coord=to_corner(scenes.coord, scenes.offset))


def _complete(head: nn.Module, level: SceneLevel) -> tuple[Tensor, Tensor]:
    """Return the points that a head predicts, and where each scene's points end."""
    points = head(level)
    return points, level.offset * (len(points) // len(level.coord))


def _sample(level: SceneLevel, most: int) -> tuple[Tensor, Tensor]:
    """Draw at most ``most`` places of every scene; return their rows and how many there are per scene."""
    scene = clouds_of(level.offset, len(level.coord))
    rank = ranks_within(own_rows(lambda rows: torch.rand(rows, device=scene.device), len(scene)), scene)
    return torch.nonzero(rank < most).squeeze(1), level.offset.diff(prepend=level.offset.new_zeros(1)).clamp_max(most)


def _random_embedding() -> nn.Sequential:
    """Return fixed random layers on coordinates and colours.

    The paper compares embeddings "gained by applying MLPs on each point" and does not say with which weights.
    """
    layers = nn.Sequential(nn.Linear(6, EMBEDDING_DIM), nn.ReLU(), nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM))
    return layers.requires_grad_(False)

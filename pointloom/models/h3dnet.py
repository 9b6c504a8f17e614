"""H3DNet (Zhang et al., 2020): VoteNet's boxes, refined by votes for the faces and edges of objects."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointloom.models.box_parts import EDGES, FACES, KINDS, edge_centers, face_centers
from pointloom.models.h3dnet_loss import Found, Matches, Parts, h3dnet_losses
from pointloom.models.pointnet2 import SetAbstraction, SharedMlp
from pointloom.models.proposals import ProposalHead, Proposals
from pointloom.models.seeds import SeedEncoder, Seeds
from pointloom.models.votenet import Voting, cluster_centers
from pointloom.structures import BoxPredictions, DetectionBatch, Losses

AWAY = 100.0
"""Metres by which parts that probably do not exist are moved, out of reach of all boxes (code)."""


class PartFinder(nn.Module):
    """For one kind of part: whether a seed belongs to one, a vote for its middle, and what the votes around say.

    Args:
        dim: Width of the seeds' features.
        num_sizes: Numbers that say the size of a part.
        num_classes: Classes.
        radius: Of the votes that are looked at together, metres.
        num_neighbors: How many these are.
    """

    def __init__(self, dim: int, *, num_sizes: int, num_classes: int, radius: float, num_neighbors: int) -> None:
        super().__init__()
        hidden = dim // 2
        self.widths = (3, num_sizes, num_classes)
        self.exists = nn.Sequential(SharedMlp(dim, hidden, bias=True), nn.Linear(hidden, 2))
        self.voting = Voting(dim)
        self.cluster = SetAbstraction(dim, widths=(hidden,) * 3, radius=radius, num_neighbors=num_neighbors)
        self.mlp = SharedMlp(hidden, hidden, hidden, bias=True)
        self.last = nn.Linear(hidden, sum(self.widths))

    def forward(self, seeds: Seeds) -> Parts:
        """Return one part per seed."""
        votes = self.voting(seeds)
        feature = self.cluster(votes.coord, votes.coord, votes.feature)
        offset, size, category = self.last(self.mlp(feature)).float().split(self.widths, dim=-1)
        return Parts(
            exists=self.exists(seeds.feature).float(),
            vote=votes.coord,
            center=votes.coord + offset,
            size=size,
            category=category,
            feature=feature,
        )


class H3dNet(nn.Module):
    """The whole detector; parameters as in the code with four encoders ``pointnet2_votenet``.

    Args:
        towers: Encoders that all look at the same points; four in the paper. Their seeds must be the same points.
        mean_sizes: Mean lengths of the boxes of every class, metres.
        num_headings: Parts of the circle, 1 for axis-aligned boxes.
        num_proposals: Boxes per scene; at most as many as there are seeds.
        radius: Of a cluster of votes, metres.
        num_neighbors: Votes per cluster.
        test_sampling: Which votes clusters grow around when predicting, as in ``VoteNet``; ``votes`` when training.
        match_radius: How far from a box's face or edge parts are looked at, metres.
        match_neighbors: How many of them.
    """

    mean_sizes: Tensor

    def __init__(
        self,
        towers: Sequence[SeedEncoder],
        *,
        mean_sizes: Float[Tensor, "k 3"],
        num_headings: int,
        num_proposals: int = 256,
        radius: float = 0.3,
        num_neighbors: int = 16,
        test_sampling: Literal["votes", "seeds"] = "votes",
        match_radius: float = 0.5,
        match_neighbors: int = 32,
    ) -> None:
        super().__init__()
        dim, num_classes = towers[0].dim, len(mean_sizes)
        hidden, part = dim // 2, dim // 8
        self.towers = nn.ModuleList(towers)
        self.num_proposals, self.test_sampling = num_proposals, test_sampling
        self.join = SharedMlp(len(towers) * dim, 2 * dim, dim, bias=True)
        self.voting = Voting(dim)
        self.finders = nn.ModuleDict(
            {
                kind: PartFinder(
                    dim, num_sizes=num_sizes, num_classes=num_classes, radius=radius, num_neighbors=num_neighbors
                )
                for kind, num_sizes in KINDS.items()
            }
        )
        self.cluster = SetAbstraction(dim, widths=(hidden,) * 3, radius=radius, num_neighbors=num_neighbors)
        self.head = ProposalHead(hidden, hidden=hidden, num_classes=num_classes, num_headings=num_headings)
        widths = (hidden, hidden // 2, part)
        self.match_faces, self.match_edges = (
            SetAbstraction(hidden + len(table), widths=widths, radius=match_radius, num_neighbors=match_neighbors)
            for table in (FACES, EDGES)
        )
        self.matched, self.same_class = (
            nn.Sequential(SharedMlp(part, part, bias=True), nn.Linear(part, 2)) for _ in range(2)
        )
        self.of_faces, self.of_edges = (SharedMlp(part, part, part, bias=True) for _ in range(2))
        self.combine = SharedMlp((len(FACES) + len(EDGES)) * part, hidden, bias=True)
        self.refine = ProposalHead(hidden, hidden=hidden, num_classes=num_classes, num_headings=num_headings)
        self.register_buffer("mean_sizes", mean_sizes.float())

    def forward(self, batch: DetectionBatch) -> Losses:
        """Return the loss (section 3.4 and code) and its parts."""
        return h3dnet_losses(self._find(batch), batch, self.mean_sizes)

    def predict(self, batch: DetectionBatch) -> BoxPredictions:
        """Propose boxes: classes from the first look, everything else refined."""
        return self._find(batch).refined.boxes(self.mean_sizes)

    def _find(self, batch: DetectionBatch) -> Found:
        towers = [
            cast(SeedEncoder, tower).embed(batch.coord, batch.color, batch.height, batch.normal)
            for tower in self.towers
        ]
        seeds = replace(towers[0], feature=self.join(torch.cat([seeds.feature for seeds in towers], dim=-1)))
        votes = self.voting(seeds)
        parts = {kind: finder(seeds) for kind, finder in self.finders.items()}
        place = cluster_centers(votes.coord, self.num_proposals, "votes" if self.training else self.test_sampling)
        feature = self.cluster(place, votes.coord, votes.feature)
        initial = self.head(place, feature)
        refined, matches = self._refine(initial, feature, parts)
        return Found(seeds, votes.coord, parts, initial, refined, matches)

    def _refine(
        self, initial: Proposals, feature: Float[Tensor, "b q c"], parts: dict[str, Parts]
    ) -> tuple[Proposals, Matches]:
        boxes = initial.boxes(self.mean_sizes).boxes
        boxes = torch.cat([boxes[..., :3], boxes[..., 3:].detach()], dim=-1)
        faces, edges = face_centers(boxes), edge_centers(boxes)
        found_faces = [_within_reach(parts[kind]) for kind in ("level", "upright")]
        face_places = torch.cat(found_faces, dim=1)
        face_features = torch.cat([parts[kind].feature for kind in ("level", "upright")], dim=1)
        at_faces = _matched(self.match_faces, faces, feature, face_places, face_features)
        at_edges = _matched(self.match_edges, edges, feature, _within_reach(parts["edge"]), parts["edge"].feature)
        both = torch.cat([at_faces, at_edges], dim=2)
        matches = Matches(
            faces=faces,
            edges=edges,
            matched=self.matched(both).float(),
            same_class=self.same_class(both).float(),
        )
        joined = torch.cat([self.of_faces(at_faces), self.of_edges(at_edges)], dim=2).flatten(2)
        refined = self.refine(initial.place, self.combine(joined) + feature)
        chosen = {
            name: getattr(refined, name) for name in ("center", "objectness", "heading_residual", "size_residual")
        }
        return replace(initial, **chosen), matches


def _within_reach(parts: Parts) -> Float[Tensor, "b t 3"]:
    """Return where parts are, those that probably do not exist far away."""
    missing = parts.exists.argmax(-1, keepdim=True) == 0
    return parts.center + AWAY * missing


def _matched(
    layer: SetAbstraction,
    centers: Float[Tensor, "b q k 3"],
    feature: Float[Tensor, "b q c"],
    places: Float[Tensor, "b t 3"],
    place_features: Float[Tensor, "b t c"],
) -> Float[Tensor, "b q k d"]:
    """Return for every face or edge of every box what is near it: parts of boxes, its own first, and found parts."""
    K = centers.shape[2]
    which = torch.eye(K, device=centers.device, dtype=feature.dtype).expand(*centers.shape[:2], K, K)
    own = torch.cat([which, feature.unsqueeze(2).expand(-1, -1, K, -1)], dim=-1).flatten(1, 2)
    none = place_features.new_zeros(*place_features.shape[:2], K)
    features = torch.cat([own, torch.cat([none, place_features], dim=-1)], dim=1)
    flat = centers.flatten(1, 2)
    return layer(flat, torch.cat([flat, places], dim=1), features).unflatten(1, centers.shape[1:3])

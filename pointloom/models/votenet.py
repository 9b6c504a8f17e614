"""VoteNet (Qi et al., 2019): seeds vote for the centres of their objects, clusters of votes become boxes."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from pointloom.models.pointnet2 import SetAbstraction, SharedMlp
from pointloom.models.proposals import ProposalHead, Proposals
from pointloom.models.seeds import SeedEncoder, Seeds
from pointloom.models.votenet_loss import proposal_losses, vote_loss
from pointloom.ops import farthest_point_sampling, gather_points
from pointloom.structures import BoxPredictions, DetectionBatch, Losses


@dataclass(frozen=True)
class Votes:
    """Where seeds believe the centres of their objects to be.

    Attributes:
        coord: Metres.
        feature: Unit vectors.
    """

    coord: Float[Tensor, "b t 3"]
    feature: Float[Tensor, "b t c"]


class Voting(nn.Module):
    """From every seed an offset to its object's centre and a change of its feature (section 4.2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = SharedMlp(dim, dim, dim, bias=True)
        self.last = nn.Linear(dim, 3 + dim)

    def forward(self, seeds: Seeds) -> Votes:
        """Return one vote per seed."""
        change = self.last(self.mlp(seeds.feature))
        feature = seeds.feature + change[..., 3:]
        return Votes(coord=seeds.coord + change[..., :3].float(), feature=feature / feature.norm(dim=-1, keepdim=True))


class VoteNet(nn.Module):
    """The whole detector; parameters as in the paper's code with the encoder ``pointnet2_votenet``.

    Args:
        encoder: Makes the seeds.
        mean_sizes: Mean lengths of the boxes of every class, metres.
        num_headings: Parts of the circle, 1 for axis-aligned boxes.
        num_proposals: Clusters, so boxes per scene; at most as many as there are seeds.
        radius: Of a cluster, metres.
        num_neighbors: Votes per cluster.
        sampling: Which votes clusters grow around: ``votes`` far apart, or the votes of ``seeds`` far apart.
        test_sampling: The same when predicting; None is as when training. The published scores have ``seeds`` here
            and ``votes`` when training.
    """

    mean_sizes: Tensor

    def __init__(
        self,
        encoder: SeedEncoder,
        *,
        mean_sizes: Float[Tensor, "k 3"],
        num_headings: int,
        num_proposals: int = 256,
        radius: float = 0.3,
        num_neighbors: int = 16,
        sampling: Literal["votes", "seeds"] = "votes",
        test_sampling: Literal["votes", "seeds"] | None = None,
    ) -> None:
        super().__init__()
        hidden = encoder.dim // 2
        self.encoder = encoder
        self.num_proposals = num_proposals
        self.sampling, self.test_sampling = sampling, test_sampling or sampling
        self.voting = Voting(encoder.dim)
        self.cluster = SetAbstraction(
            encoder.dim, widths=(hidden, hidden, hidden), radius=radius, num_neighbors=num_neighbors
        )
        self.head = ProposalHead(hidden, hidden=hidden, num_classes=len(mean_sizes), num_headings=num_headings)
        self.register_buffer("mean_sizes", mean_sizes.float())

    def forward(self, batch: DetectionBatch) -> Losses:
        """Return the loss of section 4.4 (times 10, as in the code) and its parts."""
        seeds, votes, proposals = self._propose(batch)
        of_votes = vote_loss(seeds, votes.coord, batch)
        parts = proposal_losses(proposals, batch, self.mean_sizes)
        loss = 10 * (of_votes + 0.5 * parts["objectness"] + parts["box"] + 0.1 * parts["category"])
        return {"loss": loss, "vote": of_votes, **parts}

    def predict(self, batch: DetectionBatch) -> BoxPredictions:
        """Propose boxes."""
        return self._propose(batch)[2].boxes(self.mean_sizes)

    def _propose(self, batch: DetectionBatch) -> tuple[Seeds, Votes, Proposals]:
        seeds = self.encoder.embed(batch.coord, batch.color, batch.height, batch.normal)
        votes = self.voting(seeds)
        sampling = self.sampling if self.training else self.test_sampling
        place = cluster_centers(votes.coord, self.num_proposals, sampling)
        feature = self.cluster(place, votes.coord, votes.feature)
        return seeds, votes, self.head(place, feature)


def cluster_centers(
    votes: Float[Tensor, "b t 3"], number: int, sampling: Literal["votes", "seeds"]
) -> Float[Tensor, "b q 3"]:
    """Choose the votes that clusters grow around; seeds come in the order of farthest point sampling."""
    if sampling == "seeds":
        return votes[:, :number]
    return gather_points(votes, farthest_point_sampling(votes, number))

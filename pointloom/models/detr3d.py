"""3DETR (Misra et al., 2021): queries at farthest point samples look at the scene and become boxes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointloom.models.box_coding import HeadingBins, chosen
from pointloom.models.detr_layers import DecoderLayer, FourierEmbedding
from pointloom.models.detr_loss import DetrBoxes, DetrWeights, SceneBounds, detr_losses
from pointloom.models.pointnet2 import SharedMlp
from pointloom.models.seeds import SeedEncoder
from pointloom.structures import BoxPredictions, DetectionBatch, Losses


class BoxHeads(nn.Module):
    """Five heads that every layer of the decoder shares; batch statistics are over all layers.

    Args:
        dim: Width of the queries.
        num_classes: Classes; one more logit stands for nothing.
        num_headings: Parts of the circle.
        dropout: Rate behind the hidden layers.
    """

    def __init__(self, dim: int, *, num_classes: int, num_headings: int, dropout: float) -> None:
        super().__init__()
        widths = {
            "category": num_classes + 1, "center": 3, "size": 3,
            "heading": num_headings, "heading_residual": num_headings,
        }  # fmt: skip
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(SharedMlp(dim, dim, dim, dropout=dropout), nn.Linear(dim, width))
                for name, width in widths.items()
            }
        )

    def forward(
        self, queries: Float[Tensor, "l b q c"], place: Float[Tensor, "b q 3"], bounds: SceneBounds
    ) -> DetrBoxes:
        """Return the boxes of every layer; a centre is at most half a metre per axis from its query."""
        out = {name: head(queries).float() for name, head in self.heads.items()}
        index = out["heading"].argmax(-1)
        heading = HeadingBins(out["heading"].shape[-1]).decode(index, chosen(out["heading_residual"], index))
        center = place + out["center"].sigmoid() - 0.5
        size = out["size"].sigmoid() * bounds.extent.unsqueeze(1)
        return DetrBoxes(
            category=out["category"],
            boxes=torch.cat([center, size, heading.unsqueeze(-1)], dim=-1),
            heading=out["heading"],
            heading_residual=out["heading_residual"],
        )


class Detr3d(nn.Module):
    """The whole detector; the sizes given here are the paper's.

    Args:
        encoder: Makes the tokens: ``detr`` or ``detr_masked``, or any other that makes seeds.
        num_classes: Classes.
        num_headings: Parts of the circle, 1 for axis-aligned boxes.
        weights: Of matching and losses.
        num_queries: Boxes per scene; at most as many as there are tokens.
        dim: Width of the decoder.
        depth: Layers of the decoder.
        num_heads: Attention heads.
        hidden: Width of the feed-forward networks.
        dropout: Rate in the decoder.
        head_dropout: Rate in the heads.
        projection: Layers between encoder and decoder: 3 in 3DETR, 2 in 3DETR-m.
    """

    def __init__(
        self,
        encoder: SeedEncoder,
        *,
        num_classes: int,
        num_headings: int,
        weights: DetrWeights,
        num_queries: int = 256,
        dim: int = 256,
        depth: int = 8,
        num_heads: int = 4,
        hidden: int = 256,
        dropout: float = 0.1,
        head_dropout: float = 0.3,
        projection: int = 3,
    ) -> None:
        super().__init__()
        self.encoder, self.num_queries, self.weights = encoder, num_queries, weights
        self.project = SharedMlp(*[encoder.dim] * projection, dim)
        self.position = FourierEmbedding(dim)
        self.query = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())
        self.layers = nn.ModuleList(
            DecoderLayer(dim, num_heads=num_heads, hidden=hidden, dropout=dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.heads = BoxHeads(dim, num_classes=num_classes, num_headings=num_headings, dropout=head_dropout)

    def forward(self, batch: DetectionBatch) -> Losses:
        """Return the set loss of section 3.4, summed over the decoder's layers, and the parts of the last one."""
        bounds = SceneBounds.around(batch.coord)
        return detr_losses(self._decode(batch, bounds), batch, bounds, self.weights)

    def predict(self, batch: DetectionBatch) -> BoxPredictions:
        """Propose the boxes of the last layer.

        Note:
            As in the code, the probability of a class is not conditional on there being an object.
        """
        found = self._decode(batch, SceneBounds.around(batch.coord))
        probability = found.category[-1].softmax(-1)
        return BoxPredictions(
            boxes=found.boxes[-1], probability=probability[..., :-1], objectness=1 - probability[..., -1]
        )

    def _decode(self, batch: DetectionBatch, bounds: SceneBounds) -> DetrBoxes:
        """Return the boxes of all layers.

        Raises:
            ValueError: There are more queries than tokens.
        """
        seeds = self.encoder.embed(batch.coord, batch.color, batch.height, batch.normal)
        if self.num_queries > seeds.coord.shape[1]:
            raise ValueError(f"{self.num_queries} queries need as many tokens, got {seeds.coord.shape[1]}")
        place = seeds.coord[:, : self.num_queries]  # tokens come in the order of farthest point sampling
        scene, scene_position = self.project(seeds.feature), self.position(bounds.relative(seeds.coord))
        position = self.query(self.position(bounds.relative(place)))
        x, outputs = torch.zeros_like(position), []
        for layer in self.layers:
            x = layer(x, position, scene, scene_position)
            outputs.append(self.norm(x))
        return self.heads(torch.stack(outputs), place, bounds)

"""Point-MAE: masked autoencoders for point cloud self-supervised learning (Pang et al., 2022)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pointloom.methods.masking import MASKS, visible_bounds, visible_points
from pointloom.models.blocks import init_small_points
from pointloom.models.decoders import MaskedDecoder
from pointloom.models.point_mae import PointMAEEncoder
from pointloom.ops import chamfer_distance, gather_points, share_of_mean
from pointloom.structures import Groups, Losses, PointBatch, Reconstruction


class MAE(nn.Module):
    """Hide most patches, encode the rest, predict the points of the hidden ones.

    Args:
        encoder: What is pre-trained; encodes visible patches only.
        mask_ratio: Share of hidden patches (0.6 in the paper).
        mask: ``random`` or ``block``.
        decoder_depth: Number of decoder blocks (4 in the paper).
        decoder_heads: Attention heads of the decoder (6 in the paper).
        drop_path: Largest drop-path rate of the decoder.
        loss_norm: 2 for the squared Chamfer distance (paper), 1 for the other one.
        small_start: Start with predictions of about a patch's size instead of five times that.

    Note:
        ``small_start`` is not in the official code. The loss begins ten times lower, so that Adam's second moment is
        not filled with the gradients of the first steps; in a run of 400 steps that is the difference between learning
        nothing beyond the mean patch and learning shape.

    Raises:
        ValueError: The mask has an unknown name or hides nothing or everything.
    """

    def __init__(
        self,
        encoder: PointMAEEncoder,
        *,
        mask_ratio: float,
        mask: str,
        decoder_depth: int,
        decoder_heads: int,
        drop_path: float,
        loss_norm: int,
        small_start: bool,
    ) -> None:
        super().__init__()
        if mask not in MASKS:
            raise ValueError(f"unknown mask {mask!r}; known: {', '.join(sorted(MASKS))}")
        if not 0 < int(mask_ratio * encoder.num_groups) < encoder.num_groups:
            raise ValueError(f"mask_ratio {mask_ratio} of {encoder.num_groups} groups hides none or all of them")
        self.encoder = encoder
        self.mask_ratio = mask_ratio
        self.mask = MASKS[mask]
        self._bounds = visible_bounds((encoder.num_groups,), (encoder.group_size,), ratio=mask_ratio)
        self.loss_norm = loss_norm
        self.decoder = MaskedDecoder(encoder.dim, depth=decoder_depth, num_heads=decoder_heads, drop_path=drop_path)
        self.predict = nn.Linear(encoder.dim, 3 * encoder.group_size)
        if small_start:
            init_small_points(self.predict)

    def forward(self, batch: PointBatch) -> Losses:
        """Section 3.3: Chamfer distance between predicted and true points of the hidden patches."""
        groups = self.encoder.group(batch.coord)
        hidden = self.mask(groups[0].centers, ratio=self.mask_ratio)
        predicted, target = self.predict_hidden(groups, hidden)
        distance = chamfer_distance(predicted, target, norm=self.loss_norm)
        return {"loss": share_of_mean(distance, count=len(predicted))}

    def predict_hidden(
        self, groups: list[Groups], hidden: Bool[Tensor, "b g"]
    ) -> tuple[Float[Tensor, "p k 3"], Float[Tensor, "p k 3"]]:
        """Return predicted and true points of all hidden patches, relative to their centres (equations 3 to 6).

        Args:
            groups: The patches.
            hidden: As many per cloud as ``mask_ratio`` says.
        """
        (level,) = groups
        index = self._hidden_index(hidden)
        (visible,) = self.encoder(groups, [hidden], self._bounds)
        decoded = self.decoder(visible.tokens, visible.centers, gather_points(level.centers, index))
        predicted = self.predict(decoded).reshape(-1, level.neighborhood.shape[2], 3)
        target = gather_points(level.neighborhood.flatten(2), index).reshape(-1, level.neighborhood.shape[2], 3)
        return predicted, target

    @torch.no_grad()
    def reconstruct(self, coord: Float[Tensor, "b n 3"]) -> Reconstruction:
        """Hide patches of clouds and fill them in, for looking at."""
        groups = self.encoder.group(coord)
        hidden = self.mask(groups[0].centers, ratio=self.mask_ratio)
        predicted, _ = self.predict_hidden(groups, hidden)
        centers = gather_points(groups[0].centers, self._hidden_index(hidden))
        points = predicted.float().reshape(*centers.shape[:2], -1, 3) + centers.unsqueeze(2)
        visible = visible_points(groups[0], hidden, num_points=coord.shape[1])
        return Reconstruction(visible=visible, points=points.flatten(1, 2))

    def _hidden_index(self, hidden: Bool[Tensor, "b g"]) -> Tensor:
        """Return the numbers of the hidden patches, in rising order."""
        order = hidden.int().argsort(dim=1, descending=True, stable=True)
        return order[:, : hidden.shape[1] - self._bounds[0][0]]

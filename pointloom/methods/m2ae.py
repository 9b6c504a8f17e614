"""Point-M2AE: multi-scale masked autoencoders for hierarchical point cloud pre-training (Zhang et al., 2022)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pointloom.methods.masking import independent_masks, multi_scale_mask, random_mask, visible_points
from pointloom.models.blocks import init_small_points
from pointloom.models.hierarchical_decoder import HierarchicalDecoder
from pointloom.models.point_m2ae import PointM2AEEncoder
from pointloom.models.visible import visible_slots
from pointloom.ops import chamfer_distance, earth_movers_distance, gather_points
from pointloom.structures import Groups, Losses, PointBatch, Reconstruction

COMPAT = ("official", "clean")
LOSSES = ("chamfer", "emd", "chamfer+emd")


class M2AE(nn.Module):
    """Hide most of the coarsest patches and all that only they consist of; predict hidden patches of a finer scale.

    Args:
        encoder: What is pre-trained; encodes visible patches only.
        mask_ratio: Share of hidden patches at the coarsest scale (0.8 in the paper).
        multi_scale: Whether finer masks follow from the coarsest one; False draws one per scale (ablation, table 8).
        decoder_stages: Scales the decoder goes through, from the coarsest on (2 of 3 in the paper); the patches of the
            last one are predicted.
        decoder_depth: Blocks per decoder scale (1 in the paper).
        decoder_heads: Attention heads of the decoder (6 in the paper).
        drop_path: Largest drop-path rate of the decoder.
        skip: Whether the decoder sees visible tokens of the finer scales (ablation, table 7).
        points_per_token: How many points are predicted per hidden patch.
        loss: ``chamfer`` distance (paper), earth mover's distance (``emd``) or the sum of both (ablation, table 13).
        loss_norm: 2 for the squared Chamfer distance (paper), 1 for the other one (ablation, table 13).
        small_start: Start with predictions of about a patch's size, see ``MAE``.
        compat: ``official`` repeats two oddities of the published code, ``clean`` does what the paper says. They are
            attention to padding near the origin, and patch 0 of the first cloud of a batch, visible at finer scales.

    Note:
        Equation 1 of the paper predicts the k = 8 members of a patch; the official code predicts 16 points and compares
        them with the 8 members, which published weights are bound to: ``points_per_token`` is 16 there.

    Raises:
        ValueError: The mask hides nothing or everything, the decoder has more stages than the encoder, the encoder has
            a class token, which no prediction reads, ``loss`` matches points one to one but not as many as a patch has
            are predicted, or ``loss`` or ``compat`` is unknown.
    """

    def __init__(
        self,
        encoder: PointM2AEEncoder,
        *,
        mask_ratio: float,
        multi_scale: bool,
        decoder_stages: int,
        decoder_depth: int,
        decoder_heads: int,
        drop_path: float,
        skip: bool,
        points_per_token: int,
        loss: str,
        loss_norm: int,
        small_start: bool,
        compat: str,
    ) -> None:
        super().__init__()
        top, scales = encoder.num_groups[-1], len(encoder.dims)
        if not 0 < int(mask_ratio * top) < top:
            raise ValueError(f"mask_ratio {mask_ratio} of {top} groups hides none or all of them")
        if not 1 <= decoder_stages <= scales:
            raise ValueError(f"decoder_stages must be 1 to {scales}, the scales of the encoder, got {decoder_stages}")
        if encoder.cls_token is not None:
            raise ValueError("nothing here trains a class token; add pooling 'class_token' in fine-tuning")
        if compat not in COMPAT:
            raise ValueError(f"unknown compat {compat!r}; known: {', '.join(COMPAT)}")
        if loss not in LOSSES:
            raise ValueError(f"unknown loss {loss!r}; known: {', '.join(LOSSES)}")
        members = encoder.group_sizes[scales - decoder_stages]
        if loss != "chamfer" and points_per_token != members:
            raise ValueError(
                f"loss {loss!r} gives every point a partner: points_per_token must be {members}, the members of a "
                f"predicted patch, got {points_per_token}"
            )
        self.encoder = encoder
        self.mask_ratio = mask_ratio
        self.multi_scale = multi_scale
        self.target = scales - decoder_stages
        self.points_per_token = points_per_token
        self.loss = loss
        self.loss_norm = loss_norm
        self.compat = compat
        encoder.leaky_padding = compat == "official"
        encoder.norms[: scales - 1 if not skip else self.target].requires_grad_(False)  # the decoder does not read them
        dims = tuple(encoder.dims)[: -decoder_stages - 1 : -1]
        self.decoder = HierarchicalDecoder(
            dims, depth=decoder_depth, num_heads=decoder_heads, drop_path=drop_path, skip=skip
        )
        self.predict = nn.Linear(dims[-1], 3 * points_per_token)
        if small_start:
            init_small_points(self.predict)

    def forward(self, batch: PointBatch) -> Losses:
        """Section 3.3: distance between predicted and true members of the hidden patches of one scale."""
        groups = self.encoder.group(batch.coord)
        predicted, target = self.predict_hidden(groups, self.hide(groups))
        if self.loss == "emd":
            return {"loss": earth_movers_distance(predicted, target)}
        chamfer = chamfer_distance(predicted, target, norm=self.loss_norm)
        return {"loss": chamfer if self.loss == "chamfer" else chamfer + earth_movers_distance(predicted, target)}

    def hide(self, groups: list[Groups]) -> list[Bool[Tensor, "b _"]]:
        """Draw the masks of all scales (section 3.1)."""
        if not self.multi_scale:
            return independent_masks(groups, ratio=self.mask_ratio)
        hidden = random_mask(groups[-1].centers, ratio=self.mask_ratio)
        return multi_scale_mask(groups, hidden, first_always_visible=self.compat == "official")

    def predict_hidden(
        self, groups: list[Groups], masks: list[Bool[Tensor, "b _"]]
    ) -> tuple[Float[Tensor, "p _ 3"], Float[Tensor, "p k 3"]]:
        """Return predicted and true members of all hidden patches of the predicted scale, relative to their centres."""
        hidden = masks[self.target]
        decoded = self.decoder(self.encoder(groups, masks), groups, masks)[-1]
        predicted = self.predict(decoded[hidden]).unflatten(-1, (-1, 3))
        return predicted, groups[self.target].neighborhood[hidden]

    @torch.no_grad()
    def reconstruct(self, coord: Float[Tensor, "b n 3"]) -> Reconstruction:
        """Hide patches of clouds and fill them in, for looking at; fewer hidden patches are filled up by repetition."""
        groups = self.encoder.group(coord)
        masks = self.hide(groups)
        decoded = self.decoder(self.encoder(groups, masks), groups, masks)[-1]
        slots = visible_slots(~masks[self.target])
        index = slots.index if slots.valid is None else torch.where(slots.valid, slots.index, slots.index[:, :1])
        offsets = self.predict(gather_points(decoded, index)).float().unflatten(-1, (-1, 3))
        points = offsets + gather_points(groups[self.target].centers, index).unsqueeze(2)
        visible = visible_points(groups[0], masks[0], num_points=coord.shape[1])
        return Reconstruction(visible=visible, points=points.flatten(1, 2))

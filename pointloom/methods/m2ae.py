"""Point-M2AE: multi-scale masked autoencoders for hierarchical point cloud pre-training (Zhang et al., 2022)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pointloom.methods.masking import independent_masks, multi_scale_mask, random_mask, visible_bounds, visible_points
from pointloom.models.blocks import init_small_points
from pointloom.models.hierarchical_decoder import HierarchicalDecoder
from pointloom.models.point_m2ae import PointM2AEEncoder, cut_scales
from pointloom.models.point_mae import PointMAEEncoder
from pointloom.models.visible import visible_slots
from pointloom.ops import chamfer_distance, earth_movers_distance, gather_points, share_of_mean
from pointloom.structures import Groups, Losses, PointBatch, Reconstruction

COMPAT = ("official", "clean")
LOSSES = ("chamfer", "emd", "chamfer+emd")
POINTS_PER_PATCH = 16  # of the scales below a plain encoder, as in the paper (section 4.1)
FINER_PER_PATCH = 8


class M2AE(nn.Module):
    """Hide most of the coarsest patches and all that only they consist of; predict hidden patches of a finer scale.

    Args:
        encoder: What is pre-trained; encodes visible patches only. A plain encoder sees the coarsest patches, each with
            points of its own (ablation, table 7); the finer scales below it are masked and decoded alike.
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
        finer_groups: Patches of the finer scales below a plain encoder, finest first; empty for a hierarchical one.
        compat: ``official`` repeats two oddities of the published code, ``clean`` does what the paper says. They are
            attention to padding near the origin, and patch 0 of the first cloud of a batch, visible at finer scales.

    Note:
        Equation 1 of the paper predicts the k = 8 members of a patch; the official code predicts 16 points and compares
        them with the 8 members, which published weights are bound to: ``points_per_token`` is 16 there.

    Raises:
        ValueError: The mask hides nothing or everything, the decoder has more stages than there are scales,
            ``finer_groups`` do not fit the encoder, the encoder has a class token, which no prediction reads, ``loss``
            matches points one to one but not as many as a patch has are predicted, or ``loss`` or ``compat`` is
            unknown.
    """

    def __init__(
        self,
        encoder: PointM2AEEncoder | PointMAEEncoder,
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
        finer_groups: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.num_groups, self.group_sizes, dims = _scales(encoder, finer_groups)
        top, scales = self.num_groups[-1], len(dims)
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
        members = self.group_sizes[scales - decoder_stages]
        if loss != "chamfer" and points_per_token != members:
            raise ValueError(
                f"loss {loss!r} gives every point a partner: points_per_token must be {members}, the members of a "
                f"predicted patch, got {points_per_token}"
            )
        self.encoder = encoder
        self.mask_ratio = mask_ratio
        self.multi_scale = multi_scale
        self._bounds = visible_bounds(self.num_groups, self.group_sizes, ratio=mask_ratio, multi_scale=multi_scale)
        self.target = scales - decoder_stages
        self.points_per_token = points_per_token
        self.loss = loss
        self.loss_norm = loss_norm
        self.compat = compat
        if isinstance(encoder, PointM2AEEncoder):
            encoder.leaky_padding = compat == "official"
            unread = scales - 1 if not skip else self.target
            encoder.norms[:unread].requires_grad_(False)  # the decoder does not read them
        self.decoder = HierarchicalDecoder(
            dims[: -decoder_stages - 1 : -1],
            depth=decoder_depth,
            num_heads=decoder_heads,
            drop_path=drop_path,
            skip=skip and isinstance(encoder, PointM2AEEncoder),
        )
        self.predict = nn.Linear(dims[self.target], 3 * points_per_token)
        if small_start:
            init_small_points(self.predict)

    def forward(self, batch: PointBatch) -> Losses:
        """Section 3.3: distance between predicted and true members of the hidden patches of one scale."""
        groups = self.group(batch.coord)
        predicted, target, hidden = self._predict(groups, self.hide(groups))
        terms = []
        if self.loss != "emd":
            terms.append(chamfer_distance(predicted, target, norm=self.loss_norm, counted=hidden))
        if self.loss != "chamfer":
            terms.append(earth_movers_distance(predicted[hidden], target[hidden]))
        return {"loss": share_of_mean(torch.stack(terms).sum(), count=hidden.sum())}

    def group(self, coord: Float[Tensor, "b n 3"]) -> list[Groups]:
        """Cut clouds into the patches of all scales, finest first; behind them, those that a plain encoder sees."""
        if isinstance(self.encoder, PointM2AEEncoder):
            return self.encoder.group(coord)
        near = self.encoder.skip_near_origin
        scales = cut_scales(coord, self.num_groups, self.group_sizes, skip_near_origin=near)
        return [*scales, *self.encoder.group(coord)]

    def hide(self, groups: list[Groups]) -> list[Bool[Tensor, "b _"]]:
        """Draw the masks of all scales (section 3.1)."""
        scales = groups[: len(self.group_sizes)]
        if not self.multi_scale:
            return independent_masks(scales, ratio=self.mask_ratio)
        hidden = random_mask(scales[-1].centers, ratio=self.mask_ratio)
        return multi_scale_mask(scales, hidden, first_always_visible=self.compat == "official")

    def predict_hidden(
        self, groups: list[Groups], masks: list[Bool[Tensor, "b _"]]
    ) -> tuple[Float[Tensor, "p _ 3"], Float[Tensor, "p k 3"]]:
        """Return predicted and true members of all hidden patches of the predicted scale, relative to their centres."""
        predicted, target, hidden = self._predict(groups, masks)
        return predicted[hidden], target[hidden]

    def _predict(
        self, groups: list[Groups], masks: list[Tensor]
    ) -> tuple[Float[Tensor, "a _ 3"], Float[Tensor, "a k 3"], Bool[Tensor, " a"]]:
        """Return predicted and true members of all patches of the predicted scale, and which of these are hidden."""
        predicted = self.predict(self._decode(groups, masks)).flatten(0, 1).unflatten(-1, (-1, 3))
        return predicted, groups[self.target].neighborhood.flatten(0, 1), masks[self.target].flatten()

    def _decode(self, groups: list[Groups], masks: list[Tensor]) -> Float[Tensor, "b g c"]:
        """Return the decoded tokens of all patches of the predicted scale."""
        scales = groups[: len(masks)]
        plain = len(groups) > len(masks)
        own = slice(-1, None) if plain else slice(None)
        seen = self.encoder(groups[own], masks[own], self._bounds[own])
        return self.decoder(seen, scales, masks)[-1]

    @torch.no_grad()
    def reconstruct(self, coord: Float[Tensor, "b n 3"]) -> Reconstruction:
        """Hide patches of clouds and fill them in, for looking at; fewer hidden patches are filled up by repetition."""
        groups = self.group(coord)
        masks = self.hide(groups)
        slots = visible_slots(~masks[self.target])
        index = slots.index if slots.valid is None else torch.where(slots.valid, slots.index, slots.index[:, :1])
        offsets = self.predict(gather_points(self._decode(groups, masks), index)).float().unflatten(-1, (-1, 3))
        points = offsets + gather_points(groups[self.target].centers, index).unsqueeze(2)
        plain = len(groups) > len(masks)
        seen, hidden = (groups[-1], masks[-1]) if plain else (groups[0], masks[0])
        return Reconstruction(
            visible=visible_points(seen, hidden, num_points=coord.shape[1]), points=points.flatten(1, 2)
        )


def _scales(
    encoder: PointM2AEEncoder | PointMAEEncoder, finer_groups: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return patches, members of a patch and widths of all scales, finest first; widths double from scale to scale.

    Raises:
        ValueError: A plain encoder has no finer scales below it or no more patches there, or a hierarchical one has.
    """
    num_groups, group_sizes, _ = encoder.cut
    everything = (*finer_groups, *num_groups)
    plain = isinstance(encoder, PointMAEEncoder)
    if plain != bool(finer_groups) or list(everything) != sorted(everything, reverse=True):
        raise ValueError(
            f"finer_groups are ever more patches below those of a plain encoder, got {finer_groups} and {num_groups}"
        )
    if not plain:
        return num_groups, group_sizes, tuple(encoder.dims)
    dims = tuple(encoder.dims[-1] // 2**i for i in range(len(finer_groups), -1, -1))
    return everything, (POINTS_PER_PATCH, *[FINER_PER_PATCH] * len(finer_groups)), dims

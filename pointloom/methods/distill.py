"""Stage 2 of the two-stage paper: masked distillation from the frozen aligned encoder (section 3.2)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.methods.masking import MASKS, multi_scale_mask, visible_bounds, visible_points
from pointloom.models import MaskedEncoder, PointM2AEEncoder
from pointloom.models.decoders import GlobalDecoder, MaskedDecoder, PooledHead
from pointloom.models.hierarchical_decoder import HierarchicalDecoder
from pointloom.ops import chamfer_distance, gather_points, share_of_mean
from pointloom.structures import Groups, Losses, PointBatch, Tokens

LOCAL_TARGETS = ("tokens", "multi", "points", "none")


@dataclass(frozen=True)
class Likeness:
    """How well the student guesses the teacher's tokens from what it sees.

    Attributes:
        visible: Which points the student saw.
        centers: Where the patches are, the coarsest ones of a hierarchical encoder.
        hidden: Which of them were hidden from the student.
        cosine: Cosine between guess and teacher token, per patch.
    """

    visible: Bool[Tensor, "b n"]
    centers: Float[Tensor, "b g 3"]
    hidden: Bool[Tensor, "b g"]
    cosine: Float[Tensor, "b g"]


class Distill(nn.Module):
    """Show the student a part of every cloud; it predicts what the teacher makes of all of it.

    With a hierarchical encoder, the masks of the finer scales follow from that of the coarsest one, whose tokens are
    the targets: the decoder is the first stage of Point-M2AE's. Where points are the target, it is all of that decoder,
    and the hidden patches of the scale below are predicted; skip connections are left out where tokens are shuffled,
    because they would hand over the visible tokens before that.

    Args:
        student: What is pre-trained.
        teacher: The encoder of stage 1, kept frozen and in evaluation mode.
        mask_ratio: Share of hidden patches, at the coarsest scale.
        mask: ``random`` or ``block``.
        local_target: What the local decoder predicts: ``tokens`` of the teacher at all patches, ``multi`` for those of
            the two coarsest scales of a hierarchical encoder, ``points`` of the hidden patches (masked autoencoding:
            Point-MAE's, or Point-M2AE's with a hierarchical encoder), or ``none``.
        local_weight: Factor of the local term.
        global_term: Whether the visible tokens predict the teacher's global feature.
        shuffle: Deal the token contents out anew in front of the local decoder.
        decoder_depth: Blocks of the local decoder.
        global_depth: Blocks of the global decoder; 0 pools the visible tokens as the encoder does and predicts with two
            linear layers (the paper's other choice).
        decoder_heads: Attention heads of both decoders.

    Raises:
        ValueError: The mask has an unknown name or hides nothing or everything, no term is left, the two encoders cut
            clouds into different patches, or ``multi`` is asked of an encoder of one scale.
    """

    def __init__(
        self,
        student: MaskedEncoder,
        teacher: MaskedEncoder,
        *,
        mask_ratio: float,
        mask: str,
        local_target: str,
        local_weight: float,
        global_term: bool,
        shuffle: bool,
        decoder_depth: int,
        global_depth: int,
        decoder_heads: int,
    ) -> None:
        super().__init__()
        if mask not in MASKS:
            raise ValueError(f"unknown mask {mask!r}; known: {', '.join(sorted(MASKS))}")
        num_groups, group_sizes, _ = student.cut
        if not 0 < int(mask_ratio * num_groups[-1]) < num_groups[-1]:
            raise ValueError(f"mask_ratio {mask_ratio} of {num_groups[-1]} groups hides none or all of them")
        if local_target not in LOCAL_TARGETS:
            raise ValueError(f"unknown local_target {local_target!r}; known: {', '.join(LOCAL_TARGETS)}")
        if local_target == "none" and not global_term:
            raise ValueError("nothing to learn: local_target is none and global_term is false")
        if student.cut != teacher.cut:
            raise ValueError(f"student and teacher must cut the same patches, got {student.cut} and {teacher.cut}")
        self.encoder = student
        self.teacher = teacher.requires_grad_(False)
        self.mask = MASKS[mask]
        self.mask_ratio = mask_ratio
        self._bounds = visible_bounds(num_groups, group_sizes, ratio=mask_ratio)
        self.local_target = local_target
        self.local_weight = local_weight
        self.global_decoder: GlobalDecoder | PooledHead | None = None
        self.predict_coarsest: nn.Module | None = None
        self.local_decoder = (
            self._build_local(decoder_depth, decoder_heads, shuffle) if local_target != "none" else None
        )
        if isinstance(student, PointM2AEEncoder):
            skips = isinstance(self.local_decoder, HierarchicalDecoder) and self.local_decoder.skip
            student.norms.requires_grad_(True)
            student.norms[: -2 if skips else -1].requires_grad_(False)  # nobody reads the tokens of these scales
        if global_term and global_depth == 0:
            self.global_decoder = PooledHead(student.global_dim, out_dim=teacher.global_dim)
        elif global_term:
            self.global_decoder = GlobalDecoder(
                student.dims[-1], depth=global_depth, num_heads=decoder_heads, drop_path=0.0, out_dim=teacher.global_dim
            )
        self.train()

    def _build_local(self, depth: int, num_heads: int, shuffle: bool) -> MaskedDecoder | HierarchicalDecoder:
        """Return the local decoder, and add the layer behind it."""
        student, dim, sizes = self.encoder, self.encoder.dims[-1], self.encoder.cut[1]
        multi = self.local_target == "multi"
        if multi and len(student.dims) == 1:
            raise ValueError("local_target multi needs an encoder of several scales, such as point_m2ae")
        if isinstance(student, PointM2AEEncoder) and self.local_target in {"points", "multi"}:
            dims = tuple(student.dims[-2:])[::-1]
            self.predict = nn.Linear(dims[-1], self.teacher.dims[-2] if multi else 3 * sizes[-len(dims)])
            if multi:
                self.predict_coarsest = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, self.teacher.dims[-1]))
            skip = not (shuffle or multi)
            return HierarchicalDecoder(
                dims, depth=depth, num_heads=num_heads, drop_path=0.0, skip=skip, shuffle=shuffle
            )
        self.predict = nn.Linear(dim, self.teacher.dims[-1] if self.local_target == "tokens" else 3 * sizes[-1])
        return MaskedDecoder(dim, depth=depth, num_heads=num_heads, drop_path=0.0, shuffle=shuffle)

    def train(self, mode: bool = True) -> "Distill":
        """Switch the student's mode; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: PointBatch) -> Losses:
        """Sum the local and the global term (equation 6) for the same cloud, cut into the same patches."""
        groups = self.encoder.group(batch.coord)
        hidden = self.mask(groups[-1].centers, ratio=self.mask_ratio)
        taught: list[Tokens] = []
        if self.local_target in {"tokens", "multi"} or self.global_decoder is not None:
            with torch.no_grad():
                taught = self.teacher(groups)
        masks = multi_scale_mask(groups, hidden)
        tokens = self.encoder(groups, masks, self._bounds)
        seen = tokens[-1]
        losses: Losses = {}
        if self.local_decoder is not None:
            if isinstance(self.local_decoder, HierarchicalDecoder) and self.predict_coarsest is not None:
                coarsest, finer = self.local_decoder(tokens, groups, masks)
                guesses = ((self.predict_coarsest(coarsest), taught[-1]), (self.predict(finer), taught[-2]))
                terms = [cosine_distance(guess, level.tokens).mean() for guess, level in guesses]
                local = share_of_mean(torch.stack(terms).mean(), count=len(hidden))
            elif isinstance(self.local_decoder, HierarchicalDecoder):
                local = self._finer_points_loss(self.local_decoder, groups, masks, tokens)
            else:
                local = self._local_loss(self.local_decoder, groups, hidden, seen, taught)
            losses["loss/local"] = self.local_weight * local
        if self.global_decoder is not None:
            pooled = isinstance(self.global_decoder, PooledHead)
            guess = self.global_decoder(self.encoder.pool([seen]) if pooled else with_summary(seen))
            distance = cosine_distance(guess, self.teacher.pool(taught)).mean()
            losses["loss/global"] = share_of_mean(distance, count=len(hidden))
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def _local_loss(
        self, decoder: MaskedDecoder, groups: list[Groups], hidden: Tensor, seen: Tokens, taught: list[Tokens]
    ) -> Tensor:
        """Equation 4 over all tokens; or, for ``points``, the Chamfer distance over the hidden patches."""
        level = groups[-1]
        slots = visible_first(hidden)
        masked = slots[:, seen.tokens.shape[1] :]
        masked_centers = gather_points(level.centers, masked)
        if self.local_target == "tokens":
            guess = self.predict(decoder.everywhere(seen.tokens, seen.centers, masked_centers))
            distance = cosine_distance(guess, gather_points(taught[-1].tokens, slots)).mean()
            return share_of_mean(distance, count=len(hidden))
        points = self.predict(decoder(seen.tokens, seen.centers, masked_centers)).reshape(-1, level.index.shape[2], 3)
        target = gather_points(level.neighborhood.flatten(2), masked).reshape(points.shape)
        return share_of_mean(chamfer_distance(points, target, norm=2), count=len(hidden))

    def _finer_points_loss(
        self, decoder: HierarchicalDecoder, groups: list[Groups], masks: list[Tensor], tokens: list[Tokens]
    ) -> Tensor:
        """Point-M2AE's loss: the Chamfer distance over the hidden patches of the scale that the decoder ends at."""
        scale = -1 - len(decoder.token_propagations)
        hidden = masks[scale]
        points = self.predict(decoder(tokens, groups, masks)[-1]).flatten(0, 1).unflatten(-1, (-1, 3))
        target = groups[scale].neighborhood.flatten(0, 1)
        distance = chamfer_distance(points, target, norm=2, counted=hidden.flatten())
        return share_of_mean(distance, count=hidden.sum())

    @torch.no_grad()
    def compare(self, coord: Float[Tensor, "b n 3"]) -> Likeness:
        """Hide patches of clouds and compare the student's guesses with the teacher's tokens, for looking at.

        Raises:
            ValueError: The local decoder does not predict tokens.
        """
        if not isinstance(self.local_decoder, MaskedDecoder) or self.local_target != "tokens":
            raise ValueError("the student predicts no tokens: local_target is not 'tokens'")
        groups = self.encoder.group(coord)
        hidden = self.mask(groups[-1].centers, ratio=self.mask_ratio)
        masks = multi_scale_mask(groups, hidden)
        taught, seen = self.teacher(groups)[-1], self.encoder(groups, masks, self._bounds)[-1]
        slots = visible_first(hidden)
        masked_centers = gather_points(taught.centers, slots[:, seen.tokens.shape[1] :])
        guess = self.predict(self.local_decoder.everywhere(seen.tokens, seen.centers, masked_centers))
        cosine = 1 - cosine_distance(guess, gather_points(taught.tokens, slots))
        return Likeness(
            visible=visible_points(groups[0], masks[0], num_points=coord.shape[1]),
            centers=taught.centers,
            hidden=hidden,
            cosine=torch.zeros_like(cosine).scatter(1, slots, cosine),
        )


def cosine_distance(guess: Float[Tensor, "*b c"], target: Float[Tensor, "*b c"]) -> Float[Tensor, "*b"]:
    """Return one minus the cosine, 0 to 2, in float32.

    Note:
        Equations 4 and 5 of the paper carry a minus sign in front of (1 - cosine); minimising that would push features
        apart. The text says that the negative cosine is minimised, which is this.
    """
    return 1 - F.cosine_similarity(guess.float(), target.float(), dim=-1)


def with_summary(seen: Tokens) -> Float[Tensor, "b t c"]:
    """Return the visible tokens, behind the class token where there is one.

    Note:
        The paper does not say whether the global decoder sees the class token. It does here: otherwise no term of
        the loss would reach the student's class token, half of the feature that later stages use.
    """
    return seen.tokens if seen.summary is None else torch.cat([seen.summary.unsqueeze(1), seen.tokens], dim=1)


def visible_first(hidden: Bool[Tensor, "b g"]) -> Tensor:
    """Return the numbers of all patches, the visible ones first, both in rising order (as encoder and decoder do)."""
    return hidden.int().argsort(dim=1, stable=True)

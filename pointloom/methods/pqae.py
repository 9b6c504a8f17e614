"""Point-PQAE: reconstruct one decoupled view of a cloud from the other (Zhang, Zhang and Yan, ICCV 2025)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.methods.decoupled_views import FRAMES, View, draw_view
from pointloom.models.blocks import PositionEmbed, Transformer, init_small_points, init_xavier
from pointloom.models.point_mae import PointMAEEncoder
from pointloom.models.positional_query import PositionalQuery, embed_numbers
from pointloom.ops import chamfer_distance, own_rows, share_of_mean
from pointloom.structures import Groups, Losses, PointBatch, Reconstruction

POSITIONS = ("relative", "absolute", "none")
LOSSES = ("cdl2", "cdl1", "cosine")
COMPAT = ("clean", "official")


@dataclass(frozen=True)
class Guess:
    """What one view makes of the other.

    Attributes:
        target: Patches of the view that was guessed.
        points: Guessed points of these patches, relative to their centres.
    """

    target: Groups
    points: Float[Tensor, "b g k 3"]


class PQAE(nn.Module):
    """Crop, stretch and turn a cloud twice; predict the patches of each view from the tokens of the other.

    Args:
        encoder: What is pre-trained; sees every patch of both views. Point-PQAE's has a class token.
        min_crop: Smallest share of points in a view (0.6 in the official code); 1 = no cropping.
        frame: ``box`` (paper), ``middle`` (what the official code does when cropping is off) or ``cloud``.
        rotate: Whether every view is turned about the up axis.
        position: What the query knows of the target patch: ``relative`` (its centre, and the way from the middle of the
            other view to the middle of its own: VRPE), ``absolute`` (its centre; needs views in one frame) or ``none``
            (random numbers; the ablation without VRPE).
        query: Whether positions ask the other view; without, the decoder gets the other view's tokens as they are.
        decoder_depth: Number of decoder blocks (4 in the official code).
        decoder_heads: Attention heads of query and decoder (6 in the official code).
        drop_path: Largest drop-path rate of the decoder.
        loss: ``cdl2`` (paper), ``cdl1``, or ``cosine`` of whole patches as vectors: needs points in order.
        compat: ``official`` draws all linear weights outside of the patch embedder from N(0.02, 0.01) and keeps a
            position embedding that nothing uses; ``clean`` keeps the encoder's own weights, draws Xavier-uniform ones
            for query and decoder, and has no unused parameters.
        small_start: Start with predictions of about a patch's size (see ``MAE``; not in the official code).

    Raises:
        ValueError: An unknown name, a crop share outside of (0, 1], widths that do not fit, or absolute positions of
            views in different frames.
    """

    def __init__(
        self,
        encoder: PointMAEEncoder,
        *,
        min_crop: float,
        frame: str,
        rotate: bool,
        position: str,
        query: bool,
        decoder_depth: int,
        decoder_heads: int,
        drop_path: float,
        loss: str,
        compat: str,
        small_start: bool,
    ) -> None:
        super().__init__()
        _check_name("frame", frame, FRAMES)
        _check_name("position", position, POSITIONS)
        _check_name("loss", loss, LOSSES)
        _check_name("compat", compat, COMPAT)
        if not 0 < min_crop <= 1:
            raise ValueError(f"min_crop must be above 0 and at most 1, got {min_crop}")
        if position == "absolute" and (frame != "cloud" or rotate):
            raise ValueError("position absolute needs both views in one frame: set frame to cloud and rotate to false")
        if encoder.dim % 12:
            raise ValueError(
                f"the relative position has 6 numbers: token width must be a multiple of 12: {encoder.dim}"
            )
        self.encoder = encoder
        self.min_crop = min_crop
        self.frame = frame
        self.rotate = rotate
        self.position = position
        self.loss = loss
        self.query = PositionalQuery(encoder.dim, num_heads=decoder_heads) if query else None
        self.decoder = Transformer(
            encoder.dim, depth=decoder_depth, num_heads=decoder_heads, mlp_ratio=4.0, drop_path=drop_path
        )
        self.norm = nn.LayerNorm(encoder.dim)
        self.predict = nn.Linear(encoder.dim, 3 * encoder.group_size)
        self.unused_position_embed: nn.Module | None = None
        if compat == "official":
            self.unused_position_embed = PositionEmbed(encoder.dim, hidden=128).requires_grad_(False)
        if compat == "official":
            _init_official(self)
        else:
            init_xavier(self.decoder)
            if self.query is not None:
                init_xavier(self.query)
        if small_start:
            init_small_points(self.predict)

    def forward(self, batch: PointBatch) -> Losses:
        """Sum the losses of both directions over all patches."""
        guesses = self.cross_reconstruct(self.draw_view(batch.coord), self.draw_view(batch.coord))
        first, second = (self.distance(guess) for guess in guesses)
        return {"loss": first + second, "loss/first": first, "loss/second": second}

    def draw_view(self, coord: Float[Tensor, "b n 3"]) -> View:
        """Return a new view of every cloud."""
        return draw_view(coord, min_crop=self.min_crop, frame=self.frame, rotate=self.rotate)

    def cross_reconstruct(self, first: View, second: View) -> tuple[Guess, Guess]:
        """Guess the first view from the second, and the second from the first.

        The two views pass the encoder one after the other, each with its own batch statistics.
        """
        patches = [self.encoder.group(view.coord) for view in (first, second)]
        (tokens_first,), (tokens_second,) = (self.encoder(groups) for groups in patches)
        ((patches_first,), (patches_second,)) = patches
        way = second.middle - first.middle
        return (
            Guess(patches_first, self.guess(tokens_second.tokens, patches_first.centers, way)),
            Guess(patches_second, self.guess(tokens_first.tokens, patches_second.centers, -way)),
        )

    def guess(
        self, tokens: Float[Tensor, "b g c"], centers: Float[Tensor, "b g 3"], way: Float[Tensor, "b 3"]
    ) -> Float[Tensor, "b g k 3"]:
        """Return the points of the patches at ``centers`` of one view, as the ``tokens`` of the other tell.

        Args:
            tokens: The other view, encoded.
            centers: Patch centres, in the frame of the view that is guessed.
            way: From the middle of the view that is guessed to the middle of the other, in the cloud's frame.
        """
        asked = tokens if self.query is None else self.query(self.embed_position(centers, way), tokens)
        decoded = self.norm(self.decoder(asked, torch.zeros_like(asked)))
        return self.predict(decoded).unflatten(-1, (-1, 3))

    def embed_position(self, centers: Float[Tensor, "b g 3"], way: Float[Tensor, "b 3"]) -> Float[Tensor, "b g c"]:
        """Return what the query knows of the patches to be guessed."""
        if self.position == "none":
            B, G, _ = centers.shape
            return own_rows(lambda rows: torch.randn(rows, G, self.encoder.dim, device=centers.device), B)
        offset = way if self.position == "relative" else torch.zeros_like(way)
        both = torch.cat([centers, offset.unsqueeze(1).expand_as(centers)], dim=-1)
        return embed_numbers(both, self.encoder.dim)

    def distance(self, guess: Guess) -> Float[Tensor, ""]:
        """Return the mean distance between guessed and true patches."""
        if self.loss == "cosine":
            likeness = F.cosine_similarity(guess.points.flatten(2), guess.target.neighborhood.flatten(2), dim=-1)
            return share_of_mean(-likeness.mean(), count=len(likeness))
        pred, true = guess.points.flatten(0, 1), guess.target.neighborhood.flatten(0, 1)
        return share_of_mean(chamfer_distance(pred, true, norm=2 if self.loss == "cdl2" else 1), count=len(pred))

    @torch.no_grad()
    def reconstruct(self, coord: Float[Tensor, "b n 3"]) -> Reconstruction:
        """Show a part of every cloud and draw another part of it, for looking at."""
        first, second = self.draw_view(coord), self.draw_view(coord)
        _, guess = self.cross_reconstruct(first, second)
        points = second.to_cloud((guess.points.float() + guess.target.centers.unsqueeze(2)).flatten(1, 2))
        visible = torch.zeros(coord.shape[:2], dtype=torch.bool, device=coord.device)
        return Reconstruction(visible=visible.scatter(1, first.index, True), points=points)


def _check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")


def _init_official(method: PQAE) -> None:
    """Draw the weights of all linear layers but the patch embedder's anew, as the official constructor's last line."""
    embedder = set(method.encoder.patch_embed.modules())
    for layer in method.modules():
        if isinstance(layer, nn.Linear) and layer not in embedder:
            nn.init.normal_(layer.weight, mean=0.02, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

"""The scene encoders of 3DETR and 3DETR-m (Misra et al., 2021): set abstraction, then a small transformer."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pointloom.models.detr_layers import EncoderLayer
from pointloom.models.pointnet2 import SetAbstraction
from pointloom.models.seeds import SeedEncoder, Seeds
from pointloom.ops import farthest_point_sampling, gather_points

MASK_RADII = {"paper": (0.4, 0.8, 1.2), "code": (0.16, 0.64, 1.44)}
"""Reach of attention per layer of 3DETR-m, metres.

The code squares the paper's radii and compares them with distances that are not squared; the published weights were
trained so.
"""


class DetrEncoder(SeedEncoder):
    """Tokens at farthest point samples that attend to each other.

    Args:
        num_tokens: Farthest point samples.
        dim: Width of the tokens.
        radius: Of the balls that become tokens, metres.
        num_neighbors: Points per ball.
        depth: Layers; with ``mask_radii`` as many as there are radii.
        num_heads: Attention heads.
        hidden: Width of the feed-forward networks.
        dropout: Rate everywhere in the layers.
        mask_radii: Reach of attention per layer, metres; None is global attention (3DETR). With them (3DETR-m) half of
            the tokens are kept after the first layer, with balls of twice the radius.
        color: Look at colours.
        voxel_size: See ``SceneEncoder``.

    Raises:
        ValueError: There are not as many radii as layers.
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        dim: int,
        radius: float,
        num_neighbors: int,
        depth: int,
        num_heads: int,
        hidden: int,
        dropout: float,
        mask_radii: Sequence[float] | None,
        color: bool,
        voxel_size: float,
    ) -> None:
        super().__init__(dim=dim, color=color, height=False, voxel_size=voxel_size)
        if mask_radii is not None and len(mask_radii) != depth:
            raise ValueError(f"{depth} layers need {depth} mask radii, got {len(mask_radii)}")
        self.num_tokens, self.mask_radii = num_tokens, mask_radii
        self.tokenize = SetAbstraction(
            self.num_point_features, widths=(dim // 4, dim // 2, dim), radius=radius, num_neighbors=num_neighbors
        )
        self.layers = nn.ModuleList(
            EncoderLayer(dim, num_heads=num_heads, hidden=hidden, dropout=dropout) for _ in range(depth)
        )
        if mask_radii is not None:
            self.thin = SetAbstraction(dim, widths=(dim, dim, dim), radius=2 * radius, num_neighbors=num_neighbors // 2)

    @property
    def num_samples(self) -> int:
        """One point per token."""
        return self.num_tokens

    def embed(
        self,
        coord: Float[Tensor, "b n 3"],
        color: Float[Tensor, "b n 3"],
        height: Float[Tensor, "b n"],
        normal: Float[Tensor, "b n 3"],  # noqa: ARG002
    ) -> Seeds:
        """Return the tokens; a token that sees no other sees itself.

        Raises:
            ValueError: Scenes have fewer points than there are tokens.
        """
        index = farthest_point_sampling(coord, self.num_tokens)
        place = gather_points(coord, index)
        x = self.tokenize(place, coord, self.point_features(color, height))
        for number, layer in enumerate(self.layers):
            x = layer(x, None if self.mask_radii is None else _out_of_reach(place, self.mask_radii[number]))
            if number == 0 and self.mask_radii is not None:
                kept = place[:, : self.num_tokens // 2]  # the next farthest point samples are the first of these
                x, place = self.thin(kept, place, x), kept
        return Seeds(coord=place, feature=x, index=index[:, : place.shape[1]])


def _out_of_reach(place: Float[Tensor, "b t 3"], radius: float) -> Bool[Tensor, "b t t"]:
    return torch.cdist(place, place, compute_mode="donot_use_mm_for_euclid_dist") >= radius


def detr(
    *,
    dim: int = 256,
    num_tokens: int = 2048,
    radius: float = 0.2,
    num_neighbors: int = 64,
    dropout: float = 0.1,
    color: bool = False,
    voxel_size: float = 0.02,
) -> DetrEncoder:
    """Build the encoder of 3DETR (section 3.2 and code); small ones by other arguments."""
    return DetrEncoder(
        num_tokens=num_tokens, dim=dim, radius=radius, num_neighbors=num_neighbors, depth=3, num_heads=4,
        hidden=dim // 2, dropout=dropout, mask_radii=None, color=color, voxel_size=voxel_size,
    )  # fmt: skip


def detr_masked(
    *,
    dim: int = 256,
    num_tokens: int = 2048,
    radius: float = 0.2,
    num_neighbors: int = 64,
    dropout: float = 0.3,
    mask_radii: str = "code",
    color: bool = False,
    voxel_size: float = 0.02,
) -> DetrEncoder:
    """Build the encoder of 3DETR-m; dropout 0.3 is ScanNet's, 0.1 SUN RGB-D's.

    Raises:
        ValueError: ``mask_radii`` is neither ``code`` nor ``paper``.
    """
    if mask_radii not in MASK_RADII:
        raise ValueError(f"mask_radii must be code or paper, got {mask_radii!r}")
    return DetrEncoder(
        num_tokens=num_tokens, dim=dim, radius=radius, num_neighbors=num_neighbors, depth=3, num_heads=4,
        hidden=dim // 2, dropout=dropout, mask_radii=MASK_RADII[mask_radii], color=color, voxel_size=voxel_size,
    )  # fmt: skip

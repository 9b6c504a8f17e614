"""Point-M2AE's decoder (section 3.3): mask tokens at the coarsest scale, then from scale to finer scale."""

from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.models.blocks import PositionEmbed, Transformer, init_xavier
from pointloom.models.decoders import shuffle_tokens
from pointloom.models.visible import put_back, slots_of
from pointloom.ops import interpolate_features
from pointloom.structures import Groups, Tokens


class TokenPropagation(nn.Module):
    """Join what is known of the finer scale with what the coarser one says there: a linear layer and a residual unit.

    Args:
        dim: Width of the finer scale.
        channels: Width of the joined vectors.
    """

    def __init__(self, dim: int, *, channels: int) -> None:
        super().__init__()
        self.fuse = nn.Linear(channels, dim)
        self.norm = nn.BatchNorm1d(dim)
        self.first = nn.Linear(dim, dim)
        self.norm1 = nn.BatchNorm1d(dim)
        self.second = nn.Linear(dim, dim)
        self.norm2 = nn.BatchNorm1d(dim)

    def forward(self, joined: Float[Tensor, "b g d"]) -> Float[Tensor, "b g c"]:
        """Transform every token on its own, with batch statistics over all of them while training."""
        B, G, _ = joined.shape
        x = F.gelu(self.norm(self.fuse(joined.flatten(0, 1))))
        residual = self.norm2(self.second(F.gelu(self.norm1(self.first(x)))))
        return F.gelu(residual + x).view(B, G, -1)


class HierarchicalDecoder(nn.Module):
    """Fill in the hidden tokens of the coarsest scale and carry them to finer scales.

    Args:
        dims: Token width of every decoded scale, coarsest first.
        depth: Blocks per scale (1 in the paper).
        num_heads: Attention heads.
        drop_path: Largest drop-path rate, reached in the last block.
        skip: Whether visible tokens of the finer scales join in (the paper's skip connections).
        shuffle: While training, deal the contents of the coarsest tokens out anew, see ``MaskedDecoder``.

    Note:
        The paper carries tokens to the finer scale along the patches and joins skipped tokens at visible
        positions only. The official code, followed here, interpolates between the three nearest coarse centres
        everywhere and joins the visible tokens, zeros at hidden positions, by concatenation.

        The parameters of ``token_propagations`` are exempt from weight decay by their name, as in the official code.
    """

    def __init__(
        self,
        dims: tuple[int, ...],
        *,
        depth: int,
        num_heads: int,
        drop_path: float,
        skip: bool,
        shuffle: bool = False,
    ) -> None:
        super().__init__()
        self.skip = skip
        self.shuffle = shuffle
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, 1, dims[0]), std=0.02))
        self.position_embeds = nn.ModuleList(PositionEmbed(dim, hidden=dim) for dim in dims)
        rates = torch.linspace(0, drop_path, depth * len(dims)).view(len(dims), depth).tolist()
        self.transformers = nn.ModuleList(
            Transformer(dim, depth=depth, num_heads=num_heads, mlp_ratio=4.0, drop_path=rate)
            for dim, rate in zip(dims, rates, strict=True)
        )
        self.token_propagations = nn.ModuleList(
            TokenPropagation(dim, channels=coarser + dim if skip else coarser) for coarser, dim in pairwise(dims)
        )
        self.norm = nn.LayerNorm(dims[-1])
        init_xavier(self.transformers)

    def forward(
        self, tokens: list[Tokens], groups: list[Groups], masks: list[Bool[Tensor, "b _"]]
    ) -> list[Float[Tensor, "b _ _"]]:
        """Return the tokens of all patches of every decoded scale, coarsest first, the last ones normalised.

        Args:
            tokens: What the encoder made of the visible patches, finest scale first.
            groups: The patches.
            masks: Which patches are hidden.
        """
        top = groups[-1].centers
        background = self.mask_token.expand(len(top), top.shape[1], -1)
        x = put_back(background, tokens[-1].tokens, slots_of(masks[-1], tokens[-1]))
        if self.shuffle and self.training:
            x = shuffle_tokens(x)
        decoded = [self.transformers[0](x, self.position_embeds[0](top))]
        for stage, propagate in enumerate(self.token_propagations, start=1):
            coarse, fine = groups[-stage].centers, groups[-stage - 1].centers
            x = interpolate_features(fine, coarse, decoded[-1])
            if self.skip:
                seen = tokens[-stage - 1]
                nothing = x.new_zeros(*fine.shape[:2], seen.tokens.shape[-1])
                x = torch.cat([put_back(nothing, seen.tokens, slots_of(masks[-stage - 1], seen)), x], dim=-1)
            decoded.append(self.transformers[stage](propagate(x), self.position_embeds[stage](fine)))
        decoded[-1] = self.norm(decoded[-1])
        return decoded

"""An encoder of whole scenes (HUNet, SR-UNet, Point Transformer) as the encoder of a detector."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointloom.models.seeds import SeedEncoder, Seeds
from pointloom.ops import farthest_point_sampling, gather_points
from pointloom.ops.voxels import voxelize
from pointloom.structures import SceneBatch, SceneEncoder, as_module


class SceneSeeds(SeedEncoder):
    """Read the features of all resolutions at farthest point samples, and bring them to a detector's width.

    This is how the paper of Masked Scene Modeling puts HUNet before 3DETR's decoder, with frozen weights and with tuned
    ones; the linear layer is the detector's and learns in both.

    Args:
        encoder: Encoder of scenes; it sees one point per voxel, as in its own training.
        num_seeds: Farthest point samples.
        frozen: Leave the encoder as it is: neither weights nor batch statistics change, no drop path.
        dim: Width of the seeds' features (3DETR, VoteNet: 256).

    Note:
        The paper does not say where the features are read; 3DETR has 2,048 tokens.
    """

    def __init__(self, encoder: SceneEncoder, *, num_seeds: int, frozen: bool, dim: int = 256) -> None:
        super().__init__(dim=dim, color=True, height=False, voxel_size=encoder.voxel_size)
        self.encoder, self.num_seeds, self.frozen = as_module(encoder), num_seeds, frozen
        self.encoder.requires_grad_(not frozen)
        self.width = nn.Linear(sum(encoder.dims), dim)

    def train(self, mode: bool = True) -> "SceneSeeds":
        """Train or evaluate; a frozen encoder is always evaluated."""
        super().train(mode)
        self.encoder.train(mode and not self.frozen)
        return self

    @property
    def num_samples(self) -> int:
        """One point per seed."""
        return self.num_seeds

    def embed(
        self,
        coord: Float[Tensor, "b n 3"],
        color: Float[Tensor, "b n 3"],
        height: Float[Tensor, "b n"],  # noqa: ARG002
        normal: Float[Tensor, "b n 3"],
    ) -> Seeds:
        """Return the samples in their order.

        Raises:
            ValueError: Scenes have fewer points than there are seeds.
        """
        index = farthest_point_sampling(coord, self.num_seeds)
        place = gather_points(coord, index)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            feature = self._read(coord, color, normal, place)
        return Seeds(coord=place, feature=self.width(feature), index=index)

    def _read(
        self,
        coord: Float[Tensor, "b n 3"],
        color: Float[Tensor, "b n 3"],
        normal: Float[Tensor, "b n 3"],
        place: Float[Tensor, "b t 3"],
    ) -> Float[Tensor, "b t c"]:
        scene = torch.arange(1, len(coord) + 1, device=coord.device)
        packed = coord.flatten(0, 1)
        voxels, first, _ = voxelize(packed, scene * coord.shape[1], self.voxel_size)
        unknown = torch.full_like(first, -1)
        scenes = SceneBatch(
            coord=packed[first],
            color=color.flatten(0, 1)[first],
            normal=normal.flatten(0, 1)[first],
            offset=voxels.offset,
            segment=unknown,
            instance=unknown,
            row=scene - 1,
        )
        levels = self.encoder(scenes)
        found: Tensor = self.encoder.spread(  # type: ignore[operator]
            levels, place.flatten(0, 1), scene * place.shape[1]
        )
        return found.unflatten(0, place.shape[:2])

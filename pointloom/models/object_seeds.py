"""An encoder of objects as the encoder of a detector: patches of a scene become seeds."""

import torch
from jaxtyping import Float
from torch import Tensor

from pointloom.models.point_m2ae import PointM2AEEncoder
from pointloom.models.point_mae import PointMAEEncoder
from pointloom.models.seeds import SeedEncoder, Seeds
from pointloom.ops import knn
from pointloom.ops.interpolation import nearest_weights, weighted_rows
from pointloom.structures import Encoder, as_module


class ObjectSeeds(SeedEncoder):
    """Cut scenes into patches as if they were objects; the finest patches carry what all scales know of their place.

    This is how Point-M2AE and the two-stage paper come to 3DETR: their encoders, trained on patches of points, take the
    place of its set abstraction and encoder. A coarser scale's tokens are spread to the finest one's centres, from the
    three nearest.

    Args:
        encoder: Encoder of objects, such as ``point_mae_small`` with many ``num_groups`` or ``point_m2ae_base``.
        scale: Metres of the scene that it takes for the radius of an object.

    Raises:
        ValueError: ``scale`` is not above 0.
    """

    def __init__(self, encoder: Encoder, *, scale: float) -> None:
        super().__init__(dim=sum(encoder.dims), color=False, height=False, voxel_size=0.02)
        if not scale > 0:
            raise ValueError(f"the radius of an object must be above 0 metres, got {scale}")
        self.encoder, self.scale = as_module(encoder), scale
        self._num_samples = 1
        if isinstance(encoder, PointMAEEncoder | PointM2AEEncoder):
            (patches, *_), (members, *_), _ = encoder.cut
            self._num_samples = max(patches, members)

    @property
    def num_samples(self) -> int:
        """Points for the finest patches and for the members of one."""
        return self._num_samples

    def embed(
        self,
        coord: Float[Tensor, "b n 3"],
        color: Float[Tensor, "b n 3"],  # noqa: ARG002
        height: Float[Tensor, "b n"],  # noqa: ARG002
        normal: Float[Tensor, "b n 3"],  # noqa: ARG002
    ) -> Seeds:
        """Return the finest patches' centres, in the order of farthest point sampling; only coordinates matter."""
        levels = self.encoder(self.encoder.group(coord / self.scale))  # type: ignore[operator]
        centers = levels[0].centers
        scene = torch.arange(1, len(coord) + 1, device=coord.device)
        features = [levels[0].tokens]
        for level in levels[1:]:
            index, weight = nearest_weights(
                centers.flatten(0, 1), scene * centers.shape[1], level.centers.flatten(0, 1),
                scene * level.centers.shape[1],
            )  # fmt: skip
            features.append(weighted_rows(level.tokens.flatten(0, 1), index, weight).unflatten(0, centers.shape[:2]))
        place = centers * self.scale
        return Seeds(coord=place, feature=torch.cat(features, dim=-1), index=knn(place, coord, 1).squeeze(-1))

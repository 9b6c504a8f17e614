"""A pre-trained encoder for people: load it from a folder or an MLflow URI, encode points."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pointloom.data.transforms import unit_sphere
from pointloom.errors import BackendError, DataError
from pointloom.ops import farthest_point_sampling, gather_points, interpolate_features
from pointloom.structures import Encoder, Tokens, as_module
from pointloom.train.checkpoint import EncoderCard, load_encoder_module
from pointloom.train.device import best_device

BATCH = 64


class PretrainedEncoder:
    """An encoder with its weights, ready to use.

    Attributes:
        card: What the encoder is, where its weights come from, and which labels they have seen.
        module: The network.
        device: Where it runs.
    """

    def __init__(self, module: Encoder, card: EncoderCard, *, device: torch.device) -> None:
        self.card = card
        self.module = module
        self.device = device
        as_module(module).to(device).eval()

    @torch.inference_mode()
    def encode(self, points: "NDArray[np.floating] | Tensor") -> NDArray[np.float32]:
        """Return one feature vector per cloud.

        Clouds are centred by their mean and scaled to radius 1; with more points than the encoder was trained with,
        a farthest-point subset is taken.

        Args:
            points: (n, 3) or (batch, n, 3) coordinates, +Z up, any unit; n at least the encoder's ``num_points``.

        Returns:
            (batch, d) features; (1, d) for a single cloud.

        Raises:
            DataError: Another shape, too few points, or values that are not finite.
        """
        coord = self._prepare(points)
        chunks = [coord[i : i + BATCH].to(self.device) for i in range(0, len(coord), BATCH)]
        features = [self.module.pool(self.module(self.module.group(chunk))) for chunk in chunks]
        return torch.cat(features).float().cpu().numpy()

    @torch.inference_mode()
    def encode_points(self, points: "NDArray[np.floating] | Tensor") -> NDArray[np.float32]:
        """Return one feature vector per point, (batch, n, c): tokens spread to the points by inverse distance.

        Raises:
            DataError: As in ``encode``.
        """
        coord = self._prepare(points)
        features = []
        for i in range(0, len(coord), BATCH):
            chunk = coord[i : i + BATCH].to(self.device)
            (level,) = self.module(self.module.group(chunk))[-1:]
            features.append(_spread(level, chunk))
        return torch.cat(features).float().cpu().numpy()

    def _prepare(self, points: "NDArray[np.floating] | Tensor") -> Float[Tensor, "b n 3"]:
        coord = torch.as_tensor(np.asarray(points, dtype=np.float32))
        coord = coord.unsqueeze(0) if coord.ndim == 2 else coord
        if coord.ndim != 3 or coord.shape[-1] != 3:
            raise DataError(f"expected points of shape (n, 3) or (batch, n, 3), got {tuple(np.shape(points))}")
        num = self.card.num_points
        if coord.shape[1] < num:
            raise DataError(
                f"this encoder wants at least {num} points per cloud, got {coord.shape[1]}; sample the surface more "
                "densely or repeat points"
            )
        if not bool(torch.isfinite(coord).all()):
            raise DataError("points must be finite, got NaN or infinity")
        if coord.shape[1] > num:
            coord = gather_points(coord, farthest_point_sampling(coord, num))
        return unit_sphere(coord)


def _spread(level: Tokens, coord: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n c"]:
    return interpolate_features(coord, level.centers, level.tokens)


def load_encoder(location: str | Path, *, device: torch.device | str | None = None) -> PretrainedEncoder:
    """Load an encoder from a folder or from MLflow.

    Args:
        location: A folder that a ``pretrain`` stage wrote, or an MLflow URI such as ``models:/demo-mae@newest`` or
            ``runs:/<id>/encoder``.
        device: Where to run; None takes the GPU where there is one.

    Raises:
        CheckpointError: There is no encoder, or it is damaged.
        BackendError: An MLflow URI is given and MLflow cannot deliver it.
    """
    module, card = load_encoder_module(_local_folder(location))
    return PretrainedEncoder(module, card, device=torch.device(device) if device else best_device())


def _local_folder(location: str | Path) -> Path:
    if not str(location).startswith(("models:/", "runs:/")):
        return Path(location)
    from pointloom.train.spool import tracking_target
    from pointloom.train.tracking import download_model

    target = tracking_target(Path.cwd())
    if target is None:
        raise BackendError(
            f"{location}: no MLflow server is known; set MLFLOW_TRACKING_URI, or call this inside a workspace"
        )
    try:
        return download_model(str(location), tracking_uri=target.uri)
    except BackendError:
        raise
    except Exception as error:
        raise BackendError(f"{location}: MLflow at {target.uri} did not deliver it ({error})") from error

"""A pre-trained encoder for people: load it from a folder or an MLflow URI, encode points."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pointloom.data.scene_batches import pack, scene_points
from pointloom.data.scene_checks import near_origin
from pointloom.data.scene_transforms import ScenePoints, grid_sample
from pointloom.data.scenes import Scene
from pointloom.data.transforms import unit_sphere
from pointloom.errors import BackendError, DataError
from pointloom.models import SCENE_ENCODERS
from pointloom.ops import farthest_point_sampling, gather_points, interpolate_features
from pointloom.ops.normals import estimate_normals
from pointloom.structures import Encoder, SceneEncoder, Tokens, as_module
from pointloom.train.checkpoint import EncoderCard, load_encoder_module, load_scene_encoder_module, read_card
from pointloom.train.device import best_device

BATCH = 64
ROWS = 2**18  # points that features are spread to at once


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
            DataError: Another shape, too few points, points at one place, or values that are not finite.
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
        if bool((coord == coord[:, :1]).all(dim=(1, 2)).any()):
            raise DataError("a cloud must have an extent, got one whose points all lie at the same place")
        if coord.shape[1] > num:
            coord = gather_points(coord, farthest_point_sampling(coord, num))
        return unit_sphere(coord)


def _spread(level: Tokens, coord: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n c"]:
    return interpolate_features(coord, level.centers, level.tokens)


class PretrainedSceneEncoder:
    """An encoder of scenes with its weights, ready to use.

    Attributes:
        card: What the encoder is, where its weights come from, and which labels they have seen.
        module: The network.
        device: Where it runs.
    """

    def __init__(self, module: SceneEncoder, card: EncoderCard, *, device: torch.device) -> None:
        self.card = card
        self.module = module
        self.device = device
        as_module(module).to(device).eval()

    @torch.inference_mode()
    def encode(
        self,
        points: "NDArray[np.floating]",
        color: "NDArray[np.generic] | None" = None,
        normal: "NDArray[np.floating] | None" = None,
    ) -> NDArray[np.float32]:
        """Return one feature vector per point, those of all resolutions one after the other.

        The network sees one point per voxel; its features are spread to all points, a block of them at a time.

        Args:
            points: (n, 3) coordinates of one scene in metres, +Z up, wherever the origin is.
            color: (n, 3) red, green, blue, 0 to 255; grey where it is unknown.
            normal: (n, 3) unit normals; None estimates them.

        Returns:
            (n, d) features.

        Raises:
            DataError: Another shape, values that are not finite, colours that are no bytes.
        """
        scene = _checked_scene(points, color, normal)
        chosen, _ = grid_sample(scene.coord, self.module.voxel_size, None)
        levels = self.module(pack([scene.take(chosen)], [0]).to(self.device))
        feature = np.empty((len(scene.coord), sum(self.module.dims)), dtype=np.float32)
        for start in range(0, len(feature), ROWS):
            part = torch.from_numpy(scene.coord[start : start + ROWS]).to(self.device)
            offset = torch.tensor([len(part)], device=self.device)
            feature[start : start + ROWS] = self.module.spread(levels, part, offset).float().cpu().numpy()
        return feature


def _checked_scene(
    points: "NDArray[np.floating]", color: "NDArray[np.generic] | None", normal: "NDArray[np.floating] | None"
) -> ScenePoints:
    """Return a scene as networks see it, with normals.

    Raises:
        DataError: Another shape, values that are not finite, colours that are no bytes.
    """
    given = np.asarray(points)
    if given.ndim != 2 or given.shape[1] != 3 or not len(given):
        raise DataError(f"expected the points of one scene, shape (n, 3), got {np.shape(points)}")
    if not np.isfinite(given).all():
        raise DataError("points must be finite, got NaN or infinity")
    for what, array in (("color", color), ("normal", normal)):
        if array is not None and np.shape(array) != given.shape:
            raise DataError(f"expected {what} of the shape of the points, {given.shape}, got {np.shape(array)}")
    if color is not None and np.asarray(color).dtype != np.uint8:
        kind, least, most = np.asarray(color).dtype, np.min(color), np.max(color)
        raise DataError(f"expected color as uint8, 0 to 255, got {kind} from {least} to {most}")
    if normal is not None and not np.isfinite(normal).all():
        raise DataError("normals must be finite, got NaN or infinity; without normals they are estimated")
    coord, _ = near_origin(given)
    unknown = np.full(len(coord), -1)
    return scene_points(
        Scene(
            name="",
            coord=coord,
            color=None if color is None else np.asarray(color, dtype=np.uint8),
            normal=estimate_normals(torch.from_numpy(coord)).numpy()
            if normal is None
            else np.asarray(normal, np.float32),
            segment=unknown.astype(np.int16),
            instance=unknown.astype(np.int32),
        )
    )


def load_encoder(
    location: str | Path, *, device: torch.device | str | None = None
) -> PretrainedEncoder | PretrainedSceneEncoder:
    """Load an encoder of objects or of scenes from a folder or from MLflow.

    Args:
        location: A folder that a ``pretrain`` stage wrote, inside a workspace also its name alone, or an MLflow URI
            such as ``models:/demo-mae@newest`` or ``runs:/<id>/encoder``.
        device: Where to run; None takes the GPU where there is one.

    Raises:
        CheckpointError: There is no encoder, or it is damaged.
        BackendError: An MLflow URI is given and MLflow cannot deliver it.
    """
    folder = _local_folder(location)
    if read_card(folder).builder in SCENE_ENCODERS:
        return load_scene_encoder(folder, device=device)
    return load_object_encoder(folder, device=device)


def load_object_encoder(location: str | Path, *, device: torch.device | str | None = None) -> PretrainedEncoder:
    """Load an encoder of objects; arguments as for ``load_encoder``.

    Raises:
        CheckpointError: There is no encoder, it is damaged, or it is one of scenes.
        BackendError: An MLflow URI is given and MLflow cannot deliver it.
    """
    module, card = load_encoder_module(_local_folder(location))
    return PretrainedEncoder(module, card, device=torch.device(device) if device else best_device())


def load_scene_encoder(location: str | Path, *, device: torch.device | str | None = None) -> PretrainedSceneEncoder:
    """Load an encoder of scenes; arguments as for ``load_encoder``.

    Raises:
        CheckpointError: There is no encoder, it is damaged, or it is one of objects.
        BackendError: An MLflow URI is given and MLflow cannot deliver it.
    """
    module, card = load_scene_encoder_module(_local_folder(location))
    return PretrainedSceneEncoder(module, card, device=torch.device(device) if device else best_device())


def _local_folder(location: str | Path) -> Path:
    if not str(location).startswith(("models:/", "runs:/")):
        folder, named = Path(location), Path("models") / location
        return named if not folder.exists() and named.is_dir() else folder
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
        raise BackendError(
            f"{location}: MLflow at {target.uri} did not deliver it ({error}); registered encoders are "
            "models:/NAME@newest or models:/NAME/VERSION, those of a run runs:/ID/PATH"
        ) from error

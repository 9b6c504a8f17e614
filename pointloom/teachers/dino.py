"""DINOv2 through transformers: the class token of a self-supervised vision transformer (Oquab et al., 2023)."""

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from pointloom._compat import ensure_torchvision
from pointloom.errors import BackendError, CheckpointError
from pointloom.teachers.clip import AUTOCAST, Precision
from pointloom.teachers.images import batches, normalised
from pointloom.weights import find_weights, module_sha256

if TYPE_CHECKING:
    import types

SIZE = 224
MODELS = ("dinov2", "dinov2_with_registers")


class Dino:
    """A frozen DINOv2 model.

    Attributes:
        name: Of the model, for people.
        identity: What decides its numbers: weights, architecture, preprocessing, precision; part of cache keys.
        dim: Width of the class token.
    """

    def __init__(
        self,
        model: Any,
        *,
        name: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device,
        precision: Precision,
        batch_size: int,
    ) -> None:
        weights_sha256 = module_sha256(model)
        self._model = model.to(device).eval().requires_grad_(False)
        self._mean, self._std = mean, std
        self._device = device
        self._precision = precision
        self._batch_size = batch_size
        self.dim = int(model.config.hidden_size)
        self.name = f"{name} ({weights_sha256[:12]})"
        self.identity: dict[str, Any] = {
            "library": "transformers",
            "weights_sha256": weights_sha256,
            "architecture": {key: getattr(model.config, key) for key in ("model_type", "num_attention_heads")},
            "preprocessing": f"bicubic antialias {SIZE}, mean {mean}, std {std}",
            "precision": precision,
        }

    def encode_image(self, views: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
        """Return the class token after the final norm, not normalised to length 1."""
        found = [np.empty((0, self.dim), dtype=np.float32)]
        dtype = AUTOCAST.get(self._precision, torch.bfloat16)
        for batch in batches(views, self._batch_size):
            pixel = normalised(batch, size=SIZE, mean=self._mean, std=self._std, device=self._device)
            with (
                torch.inference_mode(),
                torch.autocast(self._device.type, dtype, enabled=self._precision != "fp32"),
            ):
                tokens = self._model(pixel_values=pixel).last_hidden_state
            found.append(tokens[:, 0].float().cpu().numpy())
        return np.concatenate(found)


def load_dino(weights: str, *, device: torch.device, precision: Precision = "fp32", batch_size: int = 64) -> Dino:
    """Load DINOv2, with or without registers, from a folder on this machine; nothing is left at random.

    Args:
        weights: Folder as on the hub (``config.json``, ``model.safetensors``, ``preprocessor_config.json``), relative
            to the folder of models.
        device: Where to compute.
        precision: fp32, or autocast to bf16 or fp16.
        batch_size: Views per forward pass.

    Note:
        Mean and standard deviation are the processor's own; its resize to 256 pixels and centre cut to 224 are not
        used (see ``normalised``).

    Raises:
        BackendError: transformers is not installed.
        CheckpointError: There are no weights, they are incomplete, or they are of another model.
    """
    transformers = _transformers()
    path = find_weights(weights, needed_by="teacher dinov2")
    mean, std = _processor_statistics(transformers, path)
    return Dino(
        _load_model(transformers, path),
        name=path.name,
        mean=mean,
        std=std,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )


def _transformers() -> "types.ModuleType":
    try:
        ensure_torchvision()
        import transformers
    except ModuleNotFoundError as error:
        raise BackendError(
            f'DINOv2 needs {error.name}; install it with `pip install "pointloom[multimodal]"`'
        ) from error
    return transformers


def _load_model(transformers: Any, path: Path) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
        if config.model_type not in MODELS:
            raise CheckpointError(f"{path}: a model of type {config.model_type}, expected {' or '.join(MODELS)}")
        model, report = transformers.AutoModel.from_pretrained(
            path, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:  # the last: it would run code
        raise CheckpointError(
            f"{path}: no complete model (config.json and model.safetensors) here ({error}); "
            "download the whole repository"
        ) from error
    fresh = sorted({*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])})
    if fresh:
        raise CheckpointError(
            f"{path}: the weight file lacks {len(fresh)} of the model's tensors ({', '.join(fresh[:3])}...), they "
            "would be random; download the whole repository again"
        )
    return model


def _processor_statistics(transformers: Any, path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(path, local_files_only=True, backend="pil")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: preprocessor_config.json cannot be read ({error}); download the whole repository"
        ) from error
    return tuple(processor.image_mean), tuple(processor.image_std)

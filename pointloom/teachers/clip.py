"""CLIP models through open_clip: one image tower and one text tower with a common space.

Radford et al., 2021; OpenCLIP: Cherti et al., 2023. Weights come from a file or a folder on this machine.
"""

import json
import logging
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from pointloom._compat import ensure_torchvision
from pointloom.errors import BackendError, CheckpointError
from pointloom.teachers.images import batches, normalised
from pointloom.weights import find_weights, module_sha256

if TYPE_CHECKING:
    import types

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16"]
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_UNUSABLE = (RuntimeError, ValueError, OSError, KeyError, AssertionError, pickle.UnpicklingError)
"""What weights raise that do not fit (open_clip asserts shapes), are damaged, or would run code."""

_ARCHIVE_KEYS = {"input_resolution", "context_length", "vocab_size"}


class Clip:
    """A frozen CLIP model.

    Attributes:
        name: Of the model, for people.
        identity: What decides its numbers: weights, architecture, preprocessing, precision; part of cache keys.
        dim: Width of the common space.
        context_length: Tokens that the text tower reads; the rest of a text is cut off.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Callable[..., torch.Tensor],
        *,
        name: str,
        architecture: Mapping[str, Any],
        device: torch.device,
        precision: Precision,
        batch_size: int,
    ) -> None:
        weights_sha256 = module_sha256(model)
        self._model = model.to(device).eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._device = device
        self._precision = precision
        self._batch_size = batch_size
        size = model.visual.image_size
        self._size = int(size[0] if isinstance(size, tuple) else size)
        self._mean, self._std = tuple(model.visual.image_mean), tuple(model.visual.image_std)
        self.name = f"{name} ({weights_sha256[:12]})"
        self.identity: dict[str, Any] = {
            "library": "open_clip",
            "weights_sha256": weights_sha256,
            "architecture": dict(architecture),
            "preprocessing": f"bicubic antialias {self._size}, mean {self._mean}, std {self._std}",
            "precision": precision,
        }
        self.context_length = int(model.context_length)
        self.dim = self.encode_text([""]).shape[1]

    def encode_image(self, views: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
        """Return image features, not normalised."""
        found = [np.empty((0, self.dim), dtype=np.float32)]
        for batch in batches(views, self._batch_size):
            pixel = normalised(batch, size=self._size, mean=self._mean, std=self._std, device=self._device)
            found.append(self._run(self._model.encode_image, pixel))
        return np.concatenate(found)

    def encode_text(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Return text features, not normalised."""
        found = []
        for start in range(0, len(texts), self._batch_size):
            tokens = self._tokenizer(list(texts[start : start + self._batch_size]))
            found.append(self._run(self._model.encode_text, tokens.to(self._device)))
        return np.concatenate(found) if found else np.empty((0, self.dim), dtype=np.float32)

    def encode_words(
        self, texts: Sequence[str]
    ) -> tuple[Float[np.ndarray, "n w d"], Bool[np.ndarray, "n w"], Float[np.ndarray, "n d"]]:
        """Return a vector per token in the common space, which places hold a token, and a vector per text.

        Start and end are tokens too. Vectors are of any length; what is read of the texts is the same for all three.

        Raises:
            BackendError: The text tower has no vectors of its tokens.
        """
        tower = getattr(self._model, "text", self._model)
        if getattr(tower, "ln_final", None) is None or getattr(tower, "text_projection", None) is None:
            raise BackendError(
                f"{self.name}: this text tower has no vectors of single words; choose a model of CLIP's own kind"
            )
        words, valid, sentences = [], [], []
        kept: list[torch.Tensor] = []
        hook = tower.ln_final.register_forward_hook(lambda _module, _given, found: kept.append(found))
        try:
            for start in range(0, len(texts), self._batch_size):
                tokens = self._tokenizer(list(texts[start : start + self._batch_size]))
                sentences.append(self._run(self._model.encode_text, tokens.to(self._device)))
                words.append(self._run(partial(_projected, tower.text_projection), kept.pop()))
                valid.append((tokens != 0).flip(1).cummax(1).values.flip(1).numpy())  # "!" is token 0, as padding is
        finally:
            hook.remove()
        if not texts:
            none = np.empty((0, 1, self.dim), dtype=np.float32)
            return none, np.empty((0, 1), dtype=bool), none[:, 0]
        known = np.concatenate(valid)
        most = int(known.sum(1).max())
        return np.concatenate(words)[:, :most], known[:, :most], np.concatenate(sentences)

    def num_truncated(self, texts: Sequence[str]) -> int:
        """Return how many texts are longer than the text tower reads."""
        if not texts:
            return 0
        tokens = self._tokenizer([*texts, ""], context_length=self.context_length + 1)
        return int((tokens[:-1, -1] != tokens[-1, -1]).sum())

    def _run(self, tower: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> Float[np.ndarray, "n ..."]:
        dtype = AUTOCAST.get(self._precision, torch.bfloat16)
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype, enabled=self._precision != "fp32"),
        ):
            return tower(batch).float().cpu().numpy()


def _projected(projection: torch.Tensor | torch.nn.Linear, word: torch.Tensor) -> torch.Tensor:
    return projection(word) if isinstance(projection, torch.nn.Linear) else word @ projection


def load_clip(
    weights: str,
    *,
    architecture: str | None = None,
    quick_gelu: bool | None = None,
    device: torch.device,
    precision: Precision = "fp32",
    batch_size: int = 64,
) -> Clip:
    """Load a CLIP model from this machine; nothing is downloaded and nothing is left at random.

    Args:
        weights: Folder in open_clip's format (``open_clip_config.json`` beside the weights, prefix ``local-dir:`` is
            allowed), a weight file, or OpenAI's own archive (``ViT-L-14.pt``); relative to the folder of models.
        architecture: open_clip's name, for example ``ViT-L-14``; needed for a weight file, ignored otherwise.
        quick_gelu: The activation of OpenAI's models. None takes it from the folder, the archive or the name of the
            architecture; a weight file whose path names OpenAI must say so.
        device: Where to compute.
        precision: fp32, or autocast to bf16 or fp16.
        batch_size: Views or texts per forward pass.

    Raises:
        BackendError: open_clip is not installed.
        CheckpointError: There are no weights, or they do not fit.
    """
    open_clip = _open_clip()
    path = find_weights(weights, needed_by="teacher clip")
    if path.is_dir():
        model, tokenizer, built_from = _from_folder(open_clip, path, quick_gelu)
    elif _is_openai_archive(path):
        model = open_clip.openai.load_openai_model(str(path), precision="fp32", device="cpu")
        tokenizer, built_from = (
            open_clip.tokenizer.SimpleTokenizer(context_length=model.context_length),
            {"openai_archive": True},
        )
    else:
        model, tokenizer, built_from = _from_file(open_clip, path, architecture, quick_gelu)
    return Clip(
        model,
        tokenizer,
        name=path.name,
        architecture=built_from,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )


def _open_clip() -> "types.ModuleType":
    try:
        ensure_torchvision()
        import open_clip
    except ModuleNotFoundError as error:
        raise BackendError(f'CLIP needs {error.name}; install it with `pip install "pointloom[multimodal]"`') from error
    return open_clip


def _from_folder(open_clip: Any, path: Path, quick_gelu: bool | None) -> tuple[Any, Any, dict[str, Any]]:
    config = path / "open_clip_config.json"
    if not config.is_file():
        raise CheckpointError(
            f"{path}: open_clip_config.json is missing, so this is no folder in open_clip's format; download the whole "
            "repository of the model, not only its weights"
        )
    name = f"local-dir:{path}"
    model = _build(open_clip, name, path=path, force_quick_gelu=bool(quick_gelu))
    described = json.loads(config.read_text(encoding="utf-8"))["model_cfg"]
    return model, open_clip.get_tokenizer(name), {"model_cfg": described, "quick_gelu": bool(quick_gelu)}


def _from_file(
    open_clip: Any, path: Path, architecture: str | None, quick_gelu: bool | None
) -> tuple[Any, Any, dict[str, Any]]:
    known = open_clip.list_models()
    if architecture is None or architecture not in known:
        raise CheckpointError(
            f"{path}: a weight file does not say which model it belongs to; set architecture to one of open_clip's "
            f"names, got {architecture!r}; known: {', '.join(known)}"
        )
    if quick_gelu is None and "openai" in str(path).lower() and "quickgelu" not in architecture:
        raise CheckpointError(
            f"{path}: OpenAI's models use another activation (QuickGELU) than {architecture}, and this file does not "
            "record it; set quick_gelu to true (or to false if these are not OpenAI's weights)"
        )
    model = _build(open_clip, architecture, path=path, pretrained=str(path), force_quick_gelu=bool(quick_gelu))
    described = open_clip.get_model_config(architecture)
    return model, open_clip.get_tokenizer(architecture), {"model_cfg": described, "quick_gelu": bool(quick_gelu)}


def _build(open_clip: Any, name: str, *, path: Path, **options: Any) -> Any:
    try:
        return open_clip.create_model(name, precision="fp32", device="cpu", require_pretrained=True, **options)
    except _UNUSABLE as error:
        raise CheckpointError(f"{path}: the weights cannot be loaded into {name}: {error}") from error


def _is_openai_archive(path: Path) -> bool:
    """Tell OpenAI's own files (TorchScript, or a state dict with three extra entries) from all others."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        scripted = any(name.endswith("/constants.pkl") for name in archive.namelist())
    if scripted:
        return True
    try:
        state = torch.load(path, map_location="meta", weights_only=True)
    except _UNUSABLE as error:
        raise CheckpointError(f"{path}: no weights of torch, or some that would run code: {error}") from error
    return isinstance(state, dict) and set(state) >= _ARCHIVE_KEYS

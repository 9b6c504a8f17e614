"""Encoders on disk: safetensors weights beside a JSON that says what they are. Loading is strict."""

import hashlib
import json
import logging
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pointloom._version import __version__
from pointloom.errors import CheckpointError
from pointloom.models import SCENE_ENCODERS, ObjectEncoder, build_encoder, build_scene_encoder
from pointloom.structures import SceneEncoder, as_module

logger = logging.getLogger(__name__)

FORMAT = 1
WEIGHTS = "encoder.safetensors"
CARD = "encoder.json"
Labels = Literal["none", "captions", "classes"]


@dataclass(frozen=True)
class EncoderCard:
    """What an encoder is and where it comes from.

    Attributes:
        builder: Name in ``ENCODERS`` or ``SCENE_ENCODERS``.
        builder_args: Arguments it was built with.
        method: Pre-training method, ``untrained`` for fresh weights.
        labels: Which labels the weights have seen: none, captions that may name the category, or classes.
        up_axis: Axis of the object frame that points up.
        num_points: Points per cloud it was trained with; of a scene the largest number.
        data_digest: Digest of the store it was trained on, None if untrained.
        params: Parameters of the stage that made it.
        parent_sha256: Weights it was initialised from, None if fresh.
        weights_sha256: Digest of the weights file.
        num_parameters: Number of values in the weights that were trained.
        versions: Library versions.
        format: Version of this file format.
    """

    builder: str
    builder_args: dict[str, Any]
    method: str
    labels: Labels
    up_axis: str
    num_points: int
    data_digest: str | None
    params: dict[str, Any]
    parent_sha256: str | None
    weights_sha256: str
    num_parameters: int
    versions: dict[str, str]
    format: int = FORMAT


def save_encoder(
    folder: Path,
    encoder: nn.Module,
    *,
    builder: str,
    builder_args: Mapping[str, Any],
    method: str,
    labels: Labels,
    num_points: int,
    data_digest: str | None,
    params: Mapping[str, Any],
    parent_sha256: str | None = None,
) -> EncoderCard:
    """Write weights, card and a model card for people into ``folder`` (created; files replaced one by one)."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    temporary = folder / (WEIGHTS + ".tmp")
    save_file(state, temporary)
    temporary.replace(folder / WEIGHTS)
    card = EncoderCard(
        builder=builder,
        builder_args=dict(builder_args),
        method=method,
        labels=labels,
        up_axis="z",
        num_points=num_points,
        data_digest=data_digest,
        params=dict(params),
        parent_sha256=parent_sha256,
        weights_sha256=file_sha256(folder / WEIGHTS),
        num_parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        versions={
            "pointloom": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    )
    _write(folder / CARD, json.dumps(asdict(card), indent=2) + "\n")
    _write(folder / "README.md", _model_card(card))
    return card


def read_card(folder: Path) -> EncoderCard:
    """Read what the encoder in ``folder`` is.

    Raises:
        CheckpointError: The folder holds no encoder, or one of another format.
    """
    path = folder / CARD
    if not path.is_file():
        why = f"{CARD} is missing" if folder.is_dir() else "there is no such folder"
        beside = ", ".join(sorted(other.parent.name for other in folder.parent.glob(f"*/{CARD}")))
        raise CheckpointError(
            f"{folder} holds no encoder: {why}; give a folder of models/ that `pretrain`, `align` or `distill` wrote, "
            "or `convert`" + (f" (in {folder.parent} there are {beside})" if beside else "")
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format") != FORMAT:
            raise CheckpointError(
                f"{path}: format {content.get('format')!r}, this version reads {FORMAT}; rerun `pretrain`"
            )
        return EncoderCard(**content)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); rerun the stage that wrote it") from error


def load_encoder_module(
    folder: Path, *, allow_missing: tuple[str, ...] = (), **changed_args: Any
) -> tuple[ObjectEncoder, EncoderCard]:
    """Build the encoder of ``folder`` and load its weights, every one of them.

    Args:
        folder: What ``save_encoder`` wrote.
        allow_missing: Parameters that may keep their fresh values because the file has none (a new class token).
        changed_args: Builder arguments to replace, such as ``class_token=True``.

    Raises:
        CheckpointError: Weights are missing, damaged, left over, or of another shape.
    """
    card = read_card(folder)
    if card.builder in SCENE_ENCODERS:
        raise CheckpointError(f"{folder} holds {card.builder!r}, an encoder of scenes; this needs one of objects")
    encoder = build_encoder(card.builder, **(card.builder_args | changed_args))
    _load_weights(encoder, folder, card, args=card.builder_args | changed_args, allow_missing=allow_missing)
    return encoder, card


def load_scene_encoder_module(folder: Path, **changed_args: Any) -> tuple[SceneEncoder, EncoderCard]:
    """Build the scene encoder of ``folder`` and load its weights, every one of them.

    Args:
        folder: What ``save_encoder`` wrote.
        changed_args: Builder arguments to replace.

    Raises:
        CheckpointError: As for ``load_encoder_module``.
    """
    card = read_card(folder)
    if card.builder not in SCENE_ENCODERS:
        raise CheckpointError(f"{folder} holds {card.builder!r}, an encoder of objects; this needs one of scenes")
    args = card.builder_args | changed_args
    encoder = build_scene_encoder(card.builder, **args)
    _load_weights(as_module(encoder), folder, card, args=args, allow_missing=())
    return encoder, card


def _load_weights(
    encoder: nn.Module, folder: Path, card: EncoderCard, *, args: dict[str, Any], allow_missing: tuple[str, ...]
) -> None:
    path = folder / WEIGHTS
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the weights {path} cannot be read ({error}); rerun the stage that wrote them"
        ) from error
    digest = file_sha256(path)
    if digest != card.weights_sha256:
        raise CheckpointError(
            f"{path} is not the file that {CARD} describes: sha256 {digest[:12]}, expected {card.weights_sha256[:12]}"
        )
    own = encoder.state_dict()
    fresh = sorted(set(own) - set(state))
    missing = sorted(set(fresh) - set(allow_missing))
    surplus = sorted(set(state) - set(own))
    misshapen = [f"{k} {tuple(state[k].shape)} != {tuple(own[k].shape)}" for k in own.keys() & state.keys()
                 if state[k].shape != own[k].shape]  # fmt: skip
    if missing or surplus or misshapen:
        raise CheckpointError(
            f"{path} does not fit encoder {card.builder!r} {args}: "
            f"{len(own.keys() & state.keys())} of {len(own)} keys match; missing: {missing or 'none'}; "
            f"left over: {surplus or 'none'}; other shape: {misshapen or 'none'}; give the encoder_args it was trained "
            "with, or train it again"
        )
    if fresh:
        logger.info("%s: %d of %d weights loaded, new: %s", folder, len(own) - len(fresh), len(own), ", ".join(fresh))
    encoder.load_state_dict(state, strict=not allow_missing)


def file_sha256(path: Path) -> str:
    """Return the hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


_LABELS_TEXT = {
    "none": "The weights have seen no labels and no captions: self-supervised.",
    "captions": "The weights have seen captions, which may name categories: not self-supervised in the strict sense.",
    "classes": "The weights have seen class labels: supervised.",
}


_OBJECT_INPUT = "{} points, centred by the mean, largest distance 1"
_SCENE_INPUT = "points of whole scenes in metres with colours, at most one per voxel"
_OBJECT_USE = """
```python
import pointloom

encoder = pointloom.load_encoder("FOLDER_OR_MLFLOW_URI")
features = encoder.encode(points)  # (n, 3) or (batch, n, 3) -> (batch, channels)
```
"""
_SCENE_USE = """
```python
from pathlib import Path

from pointloom.train.checkpoint import load_scene_encoder_module

encoder, card = load_scene_encoder_module(Path("FOLDER"))
levels = encoder(batch)  # a pointloom.structures.SceneBatch -> levels, finest first
features = encoder.spread(levels, batch.coord, batch.offset)  # (points, channels)
```
"""


def _model_card(card: EncoderCard) -> str:
    scenes = card.builder in SCENE_ENCODERS
    return f"""# {card.builder} ({card.method})

| | |
|---|---|
| encoder | `{card.builder}` {card.builder_args} |
| parameters | {card.num_parameters:,} |
| method | {card.method} |
| labels | **{card.labels}**. {_LABELS_TEXT[card.labels]} |
| input | {_SCENE_INPUT if scenes else _OBJECT_INPUT.format(card.num_points)}, +{card.up_axis.upper()} up |
| data digest | `{card.data_digest or "none"}` |
| weights sha256 | `{card.weights_sha256}` |
| versions | {", ".join(f"{name} {version}" for name, version in card.versions.items())} |
{_SCENE_USE if scenes else _OBJECT_USE}"""

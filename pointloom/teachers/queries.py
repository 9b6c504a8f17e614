"""Text teachers opened again for words that were not known when the features were made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from pointloom.data.feature_files import unit
from pointloom.data.features import FeatureStore
from pointloom.errors import CheckpointError
from pointloom.teachers.clip import load_clip
from pointloom.teachers.interfaces import TextTower
from pointloom.teachers.offline_text import BagOfWords, load_bag_of_words


class TextTeacher:
    """A text teacher of some features.

    Attributes:
        name: In the features.
        dim: Width of its vectors.
    """

    def __init__(self, tower: TextTower, *, name: str) -> None:
        self.name = name
        self.dim = tower.dim
        self._tower = tower

    @property
    def vocabulary(self) -> list[str] | None:
        """Return all words it can tell apart from noise, None where it reads any text."""
        return sorted(self._tower.weights) if isinstance(self._tower, BagOfWords) else None

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """Return unit vectors in the space of the features; zero for a text without any word."""
        return unit(self._tower.encode_text(texts))

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that mean nothing to the teacher, because no caption held them."""
        return self._tower.unknown_words(text) if isinstance(self._tower, BagOfWords) else []


def open_text_teacher(store: FeatureStore, name: str, *, device: torch.device | None = None) -> TextTeacher:
    """Open a text teacher again.

    Args:
        store: Features that it made.
        name: Of the teacher.
        device: Where to compute, by default the CPU.

    Raises:
        CheckpointError: Its weights are missing, or are not those that made the features.
        DataError: The features have no such text teacher.
    """
    return open_saved_teacher(store.reopen(name), name=name, where=store.path, device=device)


def open_saved_teacher(
    saved: Mapping[str, Any], *, name: str, where: Path, device: torch.device | None = None
) -> TextTeacher:
    """Open a text teacher from what was kept of it.

    Args:
        saved: What its loader needs.
        name: Of the teacher.
        where: What it belongs to, for messages.
        device: Where to compute, by default the CPU.

    Raises:
        CheckpointError: Its weights are missing, or are not those that were used.
    """
    if saved["teacher"] == "bag_of_words":
        return TextTeacher(load_bag_of_words(saved), name=name)
    options: dict[str, Any] = {key: saved[key] for key in ("weights", "architecture", "quick_gelu", "precision")}
    clip = load_clip(**options, device=device or torch.device("cpu"))
    made, found = (identity["weights_sha256"] for identity in (saved["identity"], clip.identity))
    if made != found:
        raise CheckpointError(
            f"{saved['weights']}: these weights ({found[:12]}) are not those that made the features {name!r} in "
            f"{where} ({made[:12]}); restore them, or run `pointloom embed` again"
        )
    return TextTeacher(clip, name=name)

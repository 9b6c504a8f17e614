"""What the embedding stage expects of a teacher."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class TextTower(Protocol):
    """A frozen model for sentences."""

    @property
    def name(self) -> str:
        """Return its name for people."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Return everything that decides its numbers, as JSON values."""

    @property
    def dim(self) -> int:
        """Return the width of its vectors."""

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (n, D) vectors of any length."""

    def num_truncated(self, texts: Sequence[str]) -> int:
        """Return how many texts are longer than it reads."""


@runtime_checkable
class ImageTower(Protocol):
    """A frozen model for pictures."""

    @property
    def name(self) -> str:
        """Return its name for people."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Return everything that decides its numbers, as JSON values."""

    @property
    def dim(self) -> int:
        """Return the width of its vectors."""

    def encode_image(self, views: NDArray[Any]) -> NDArray[np.float32]:
        """Return (n, R) vectors of any length; R is ``dim`` unless the teacher is fitted first."""


@runtime_checkable
class FittedTower(ImageTower, Protocol):
    """A model for pictures whose last step is learned from training views."""

    def fit(self, blocks: Iterable[NDArray[np.float32]]) -> None:
        """Learn from (n, R) vectors of training views, in blocks."""

    def project(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn (n, R) vectors into (n, D)."""

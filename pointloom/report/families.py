"""Views, captions, teacher features and aligned encoders beside the prepared objects; all of them may be absent."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from pointloom.data.captions import CaptionStore
from pointloom.data.features import FeatureStore
from pointloom.data.shape_index import ShapeIndex
from pointloom.data.views import ViewStore
from pointloom.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True)
class Families:
    """What the multimodal stages left behind, by folder name.

    Attributes:
        views: Rendered views.
        captions: Captions of views.
        features: Cached features of the teachers.
        indices: Search indices of aligned encoders.
    """

    views: dict[str, ViewStore] = field(default_factory=dict)
    captions: dict[str, CaptionStore] = field(default_factory=dict)
    features: dict[str, FeatureStore] = field(default_factory=dict)
    indices: dict[str, ShapeIndex] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.views or self.captions or self.features or self.indices)

    def any_views(self) -> ViewStore | None:
        """Return the first views by name, None where there are none."""
        return next(iter(self.views.values()), None)

    def views_with(self, digest: str | None) -> ViewStore | None:
        """Return the views with a digest, None where they are no longer there; any views where there is no digest."""
        if digest is None:
            return self.any_views()
        return next((views for views in self.views.values() if views.info.digest == digest), None)

    def features_with(self, digest: str) -> FeatureStore | None:
        """Return the features with a digest, None where they are no longer there."""
        return next((features for features in self.features.values() if features.info.digest == digest), None)


def load_families(*, data: Path, results: Path, dataset_digest: str, problems: list[str]) -> Families:
    """Open everything that is there; what is damaged or belongs to other objects becomes a sentence in ``problems``.

    Args:
        data: Folder with ``views/``, ``captions/`` and ``features/``.
        results: Folder with ``align/``.
        dataset_digest: Of the prepared store.
        problems: Sentences are added here.
    """

    def open_all(parent: Path, marker: str, open_one: Callable[[Path], T]) -> dict[str, T]:
        found = {}
        for folder in sorted(path.parent for path in parent.glob(f"*/{marker}")):
            try:
                found[folder.name] = open_one(folder)
            except DataError as error:
                problems.append(f"{error}.")
        return found

    return Families(
        views=open_all(data / "views", "views.json", lambda path: ViewStore(path, dataset_digest=dataset_digest)),
        captions=open_all(
            data / "captions", "captions.json", lambda path: CaptionStore(path, dataset_digest=dataset_digest)
        ),
        features=open_all(
            data / "features", "features.json", lambda path: FeatureStore(path, dataset_digest=dataset_digest)
        ),
        indices=open_all(results / "align", "index.json", ShapeIndex),
    )


def held_out(splits: np.ndarray) -> np.ndarray:
    """Return the rows of the test objects, of all objects where nothing is held out."""
    rows = np.flatnonzero(splits == "test")
    return rows if len(rows) else np.arange(len(splits))

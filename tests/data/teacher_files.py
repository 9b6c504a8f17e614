"""Small folders of teacher features on disk, written as ``embed`` writes them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointloom.data.feature_files import FeatureInfo, FeaturesInfo, ObjectFeatures, write_features
from pointloom.data.features import FeatureStore
from pointloom.teachers.offline_text import BagOfWords

TEXT, VIEWS, CAPTIONS = 12, 4, 3
IMAGES = {"look": ("rgb", 10), "sight_rgb": ("rgb", 8), "sight_depth": ("depth", 8)}


def write_teachers(
    folder: Path,
    uids: Sequence[str],
    categories: Sequence[str],
    *,
    classes: Sequence[str],
    dataset_digest: str = "store",
    seed: int = 0,
    without_text: Sequence[int] = (),
    without_views: Sequence[int] = (),
    noise_rows: Sequence[int] = (),
    tower: BagOfWords | None = None,
) -> FeatureStore:
    """Write features that depend on the class: its vector plus a little noise.

    Args:
        folder: Where to write.
        uids: Objects.
        categories: Class of each.
        classes: All classes.
        dataset_digest: Of the store they belong to.
        seed: Of everything random.
        without_text: Rows without captions.
        without_views: Rows without views.
        noise_rows: Rows whose vectors and captions are replaced by noise.
        tower: Text teacher whose vectors of the captions are written, None for vectors that depend on the class.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    dims = {"words": TEXT} | {name: dim for name, (_, dim) in IMAGES.items()}
    prototypes = {name: rng.normal(size=(len(classes), dim)) for name, dim in dims.items()}
    rows = [_object(rng, row, uid, list(classes).index(category), prototypes, without_text, without_views, noise_rows)
            for row, (uid, category) in enumerate(zip(uids, categories, strict=True))]  # fmt: skip
    if tower is not None:
        for category, found in zip(categories, rows, strict=True):
            found["words"] = tower.encode_text(texts(category, 0))
    objects = [
        ObjectFeatures(uid, () if row in without_text else texts(category, row),
                       () if row in without_text else text_ids(list(classes).index(category), row), found)
        for row, (uid, category, found) in enumerate(zip(uids, categories, rows, strict=True))
    ]  # fmt: skip
    teachers = [FeatureInfo("words", "text", "captions", "words", TEXT, "k0")]
    for name, (source, dim) in IMAGES.items():
        teachers.append(FeatureInfo(name, "image", source, name.split("_")[0], dim, f"key-{name}"))  # type: ignore[arg-type]
    info = FeaturesInfo(tuple(teachers), tuple(classes), dataset_digest, "views", "captions", True, CAPTIONS, VIEWS)
    class_text = {"words": prototypes["words"].astype(np.float32)}
    write_features(folder, objects, info=info, class_text=class_text, reopen={"words": tower.saved() if tower else {}})
    return FeatureStore(folder)


def texts(category: str, row: int) -> tuple[str, ...]:
    """Captions of an object: two that name the class, one that does not."""
    return (f"a {category}", f"a nice {category} of number {row}", f"a thing of number {row}")


def text_ids(label: int, row: int) -> tuple[int, ...]:
    """Numbers of the captions of ``texts``."""
    return (label, 1000 + row, 2000 + row)


def _object(
    rng: np.random.Generator,
    row: int,
    uid: str,
    label: int,
    prototypes: dict[str, NDArray[np.float64]],
    without_text: Sequence[int],
    without_views: Sequence[int],
    noise_rows: Sequence[int],
) -> dict[str, NDArray[np.float32]]:
    found = {}
    for name, prototype in prototypes.items():
        count = CAPTIONS if name == "words" else VIEWS
        noise = rng.normal(size=(count, prototype.shape[1]))
        other = np.random.default_rng([row, 99]).normal(size=noise.shape)
        value = other if row in noise_rows else prototype[label] + 0.3 * noise
        if row in (without_text if name == "words" else without_views):
            value = np.full_like(value, np.nan)
        if name == "look":
            value[0] = np.nan  # the first view of every object was rejected for this teacher
        found[name] = value.astype(np.float32)
    return found

"""A few-shot fold of the community in memory, read like a prepared store."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pointloom.data.folds import Fold
from pointloom.data.records import StoreInfo
from pointloom.errors import DataError
from pointloom.ops import farthest_point_sampling

Y_UP_TO_Z_UP = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=np.float32)


class FoldClouds:
    """Clouds of a fold, +Z up, in farthest-point order; the training objects come first.

    Attributes:
        path: File of the fold.
        info: Points per object; classes are numbered as in the fold.
        labels: (A,) class per object, 0 to way - 1.
    """

    def __init__(self, fold: Fold, *, path: Path, num_points: int, way: int) -> None:
        """Take the first ``num_points`` points of every cloud in farthest-point order.

        Raises:
            DataError: As for ``check_fold``.
        """
        check_fold(fold, path=path, num_points=num_points, way=way)
        self.path = path
        self.labels: NDArray[np.int64] = np.concatenate([fold.train.label, fold.test.label])
        self._num_train = len(fold.train.label)
        self._coord = np.stack([_ordered(p, num_points) for p in [*fold.train.points, *fold.test.points]])
        self.info = StoreInfo(
            num_points=num_points,
            classes=tuple(str(label) for label in range(way)),
            source="modelnet_fewshot",
            digest="",
            counts={},
            quarantined=0,
        )

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the rows of ``train`` or ``test``."""
        every = np.arange(len(self.labels))
        return every[: self._num_train] if split == "train" else every[self._num_train :]

    def coords(self, rows: NDArray[np.int64], num_points: int | None = None) -> NDArray[np.float32]:
        """Return (R, num_points, 3) coordinates."""
        return self._coord[rows, :num_points]


def check_fold(fold: Fold, *, path: Path, num_points: int, way: int) -> None:
    """Check that a fold can be learned from and tested on.

    Raises:
        DataError: A cloud has fewer points than ``num_points`` or numbers that are not finite, or training or test
            objects have other classes than ``way``.
    """
    for part in (fold.train, fold.test):
        if (got := sorted(set(part.label.tolist()))) != list(range(way)):
            raise DataError(f"{path}: expected classes 0 to {way - 1}, got {got}")
        for points in part.points:
            if len(points) < num_points:
                few = f"a cloud has {len(points)} points, {num_points} are to be drawn from; lower the pool"
                raise DataError(f"{path}: {few}")
            if not np.isfinite(points).all():
                raise DataError(f"{path}: a cloud has points that are NaN or infinite; get the file again")


def _ordered(points: NDArray[np.float32], num_points: int) -> NDArray[np.float32]:
    coord = points[:, :3] @ Y_UP_TO_Z_UP.T
    order = farthest_point_sampling(torch.from_numpy(coord)[None], num_points)[0].numpy()
    return coord[order]

"""Pairs of views: every scene changed at random twice, with what tells which places are the same."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from pointloom.data.scene_batches import SceneSampling, pack, scene_points
from pointloom.data.scene_loading import SceneSource, ShuffledScenes
from pointloom.data.scene_transforms import ScenePoints, augment, grid_sample, sphere_crop
from pointloom.errors import DataError
from pointloom.structures import SceneViews


class SceneViewsLoader(ShuffledScenes[SceneViews]):
    """Some rows of a store, in shuffled batches of pairs of views.

    Both views have one random point per voxel. A scene with more than ``max_points`` voxels is cropped about the same
    random point in both views.
    """

    def __init__(
        self, store: SceneSource, rows: NDArray[np.int64], *, sampling: SceneSampling, batch_size: int, seed: int
    ) -> None:
        """Prepare to read ``rows``; scenes are read when they are needed.

        Raises:
            DataError: There are no rows, or the sampling cuts blocks out, which two views cannot share.
        """
        if sampling.block != "none":
            raise DataError(f"pairs of views are not cut into blocks: set block to none, got {sampling.block!r}")
        super().__init__(store, rows, batch_size=batch_size, seed=seed)
        self.sampling = sampling

    def _training_batch(self, rows: list[int], rngs: list[np.random.Generator]) -> SceneViews:
        views = [view for row, rng in zip(rows, rngs, strict=True) for view in self._pair(row, rng)]
        return SceneViews(
            scenes=pack([points for points, _ in views], np.repeat(rows, 2).tolist()),
            place=torch.from_numpy(np.concatenate([place for _, place in views])),
        )

    def _pair(self, row: int, rng: np.random.Generator) -> list[tuple[ScenePoints, NDArray[np.float32]]]:
        """Return two views of a scene, each with the places of its points before the change."""
        points = scene_points(self.store.scene(row))
        numbered = replace(points, instance=np.arange(len(points.coord)))  # carried through, to find the places again
        center = points.coord[rng.integers(len(points.coord))]
        views = []
        for _ in range(2):
            view = augment(numbered, self.sampling.augmentation, rng)
            view = view.take(grid_sample(view.coord, self.sampling.voxel_size, rng)[0])
            if self.sampling.max_points is not None:
                view = view.take(sphere_crop(points.coord[view.instance], self.sampling.max_points, center))
            number = view.instance
            views.append((replace(view, instance=points.instance[number]), points.coord[number]))
        return views

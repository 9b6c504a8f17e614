"""Pairs of views: every scene changed at random twice, with what tells which places are the same."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from pointloom.data.scene_batches import SceneSampling, SceneSource, pack, scene_points
from pointloom.data.scene_transforms import ScenePoints, augment, grid_sample, sphere_crop
from pointloom.errors import DataError
from pointloom.structures import SceneViews


class SceneViewsLoader:
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
        if len(rows) == 0:
            raise DataError(f"{store.path}: there is no scene to train on; look at its index and split")
        if sampling.block != "none":
            raise DataError(f"pairs of views are not cut into blocks: set block to none, got {sampling.block!r}")
        self.store = store
        self.rows = rows
        self.sampling = sampling
        self.batch_size = min(batch_size, len(rows))
        self.seed = seed

    def __len__(self) -> int:
        """Training steps per epoch; a last incomplete batch is left out."""
        return len(self.rows) // self.batch_size

    def batches(self, epoch: int, *, first_step: int = 0) -> Iterator[SceneViews]:
        """Yield the shuffled batches of one epoch; the next one is made while one is in use."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))

        def make(step: int) -> SceneViews:
            chosen = self.rows[order[step * self.batch_size : (step + 1) * self.batch_size]]
            seeds = [[self.seed, epoch, step + 1, place] for place in range(len(chosen))]
            pairs = [self._pair(int(row), np.random.default_rng(s)) for row, s in zip(chosen, seeds, strict=True)]
            views = [pair[side] for side in (0, 1) for pair in pairs]
            return SceneViews(
                scenes=pack([points for points, _ in views], [*chosen.tolist(), *chosen.tolist()]),
                place=torch.from_numpy(np.concatenate([place for _, place in views])),
            )

        with ThreadPoolExecutor(max_workers=1) as thread:
            ahead = thread.submit(make, first_step) if first_step < len(self) else None
            for step in range(first_step, len(self)):
                assert ahead is not None
                batch = ahead.result()
                ahead = thread.submit(make, step + 1) if step + 1 < len(self) else None
                yield batch

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

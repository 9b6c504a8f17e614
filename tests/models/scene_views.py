"""Two views of small scenes, for tests of methods."""

from dataclasses import replace

import torch

from pointloom.structures import SceneBatch, SceneViews
from tests.models.scenes import box_scenes


def turned_views(sizes: tuple[int, ...] = (300, 200), *, seed: int = 0) -> SceneViews:
    """Scenes of so many points; the second view of each is turned by a right angle about the up axis."""
    scenes = box_scenes(sizes, seed=seed)
    views = []
    for number in range(len(sizes)):
        first = scenes.part(number, number + 1)
        x, y, z = first.coord.unbind(1)
        views += [first, replace(first, coord=torch.stack([-y, x, z], dim=1))]
    both = {name: torch.cat([vars(view)[name] for view in views]) for name in vars(scenes)}
    both["offset"] = torch.tensor([len(view.coord) for view in views]).cumsum(0)
    return SceneViews(scenes=SceneBatch(**both), place=torch.cat([view.coord for view in views[::2] for _ in range(2)]))

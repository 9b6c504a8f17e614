"""Two views of small scenes, for tests of methods."""

import torch

from pointloom.structures import SceneBatch, SceneViews
from tests.models.scenes import box_scenes


def turned_views(seed: int = 0) -> SceneViews:
    """Two scenes; the second view is turned by a right angle about the up axis."""
    scenes = box_scenes(seed=seed)
    turned = torch.stack([-scenes.coord[:, 1], scenes.coord[:, 0], scenes.coord[:, 2]], dim=1)
    values = {
        name: torch.cat([value, value]) for name, value in vars(scenes).items() if name not in {"coord", "offset"}
    }
    both = SceneBatch(
        **values,
        coord=torch.cat([scenes.coord, turned]),
        offset=torch.cat([scenes.offset, scenes.offset + scenes.offset[-1]]),
    )
    return SceneViews(scenes=both, place=torch.cat([scenes.coord, scenes.coord]))

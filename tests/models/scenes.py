"""Small packed scenes for tests of scene encoders and methods."""

import torch

from pointloom.structures import SceneBatch


def box_scenes(sizes: tuple[int, ...] = (300, 200), *, edge: float = 1.0, seed: int = 0) -> SceneBatch:
    """Random points on the faces of a box, with colours that depend on the place."""
    generator = torch.Generator().manual_seed(seed)
    num = sum(sizes)
    coord = torch.rand(num, 3, generator=generator) * edge
    face = torch.randint(3, (num,), generator=generator)
    coord[torch.arange(num), face] = 0.01 * edge
    normal = torch.eye(3)[face]
    return SceneBatch(
        coord=coord,
        color=(coord / edge * 0.8 + 0.2 * torch.rand(num, 3, generator=generator)).clamp(0, 1),
        normal=normal,
        offset=torch.tensor(sizes).cumsum(0),
        segment=face,
        instance=torch.full((num,), -1),
        row=torch.arange(len(sizes)),
    )

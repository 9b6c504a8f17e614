"""MSC: disjoint holes on a common grid, pairs of the same place, a contrast checked by hand, a loss that falls."""

from typing import Any

import numpy as np
import pytest
import torch

from pointloom.methods.msc import MSC
from pointloom.models.sr_unet import SRUNet
from pointloom.structures import SceneMethod
from tests.models.scene_views import turned_views
from tests.models.scenes import box_scenes


def method(**changed: Any) -> MSC:
    torch.manual_seed(0)
    encoder = SRUNet(
        voxel_size=0.1, stem_dim=8, dims=(12, 16), blocks=(1, 1), decoder_dims=(10, 12), decoder_blocks=1,
        sampling="trilinear",
    )  # fmt: skip
    values: dict[str, Any] = {
        "view_share": 0.6, "mask_ratio": 0.4, "patch_size": 0.25, "radius": 0.06, "max_pairs": 50, "temperature": 0.4,
        "normals": True,
    }  # fmt: skip
    return MSC(encoder, **values | changed)


def test_holes_are_whole_patches_of_a_common_grid_and_disjoint() -> None:
    chosen, batch = method(), turned_views()
    place, offset = batch.place, batch.scenes.offset
    hidden = chosen.hide(place, offset)
    scene = np.repeat(range(4), offset.diff(prepend=torch.zeros(1, dtype=torch.long)).tolist())
    for first in (0, 2):
        rows = [np.flatnonzero(scene == view) for view in (first, first + 1)]
        low = np.floor(place[np.concatenate(rows)].numpy() / np.float32(0.25)).min(0)
        patches = []
        for own in rows:
            cell = np.floor(place[own].numpy() / np.float32(0.25)) - low
            here = {tuple(c) for c in cell[hidden[own].numpy()]}
            seen = {tuple(c) for c in cell[~hidden[own].numpy()]}
            assert not here & seen
            patches.append((here, here | seen))
        assert not patches[0][0] & patches[1][0]
        for here, everything in patches:  # both views have the same points, so the same patches
            assert len(here) == round(0.4 * len(everything))


def test_views_without_a_hidden_voxel_have_nothing_to_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = method()
    monkeypatch.setattr(chosen, "hide", lambda place, _: torch.zeros(len(place), dtype=torch.bool))
    losses = chosen(turned_views())
    assert losses["loss/color"].item() == losses["loss/normal"].item() == 0
    assert losses["loss"].item() == pytest.approx(losses["loss/contrast"].item())


def test_contrast_is_cross_entropy_over_pairs_of_the_same_place() -> None:
    chosen = method(max_pairs=10_000)
    place = torch.rand(30, 3)
    both = torch.cat([place, place + 0.001])
    feature = torch.randn(60, 4)
    offset = torch.tensor([30, 60])
    here, there = (torch.nn.functional.normalize(rows, dim=1).numpy() for rows in feature.split(30))
    scores = np.exp(here @ there.T / 0.4)
    expected = -np.log(np.diag(scores) / scores.sum(1)).mean()
    assert chosen.contrast(feature, both, offset).item() == pytest.approx(expected, rel=1e-4)
    apart = torch.cat([place, place + 5])
    assert chosen.contrast(feature, apart, offset).item() == 0


def test_every_weight_gets_a_gradient_and_parts_add_up() -> None:
    chosen = method()
    losses = chosen(turned_views())
    assert set(losses) == {"loss", "loss/contrast", "loss/color", "loss/normal"}
    parts = [losses[name].item() for name in losses if name != "loss"]
    assert losses["loss"].item() == pytest.approx(sum(parts), rel=1e-5)
    losses["loss"].backward()
    coarsest_only = [name for name, p in chosen.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert coarsest_only == []
    assert set(method(normals=False)(turned_views())) == {"loss", "loss/contrast", "loss/color"}


def test_a_small_scene_is_learned_and_looked_at() -> None:
    chosen = method().train()
    assert isinstance(chosen, SceneMethod)
    optimizer = torch.optim.AdamW(chosen.parameters(), lr=3e-3)
    curve = []
    for _ in range(20):
        loss = chosen(turned_views())["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    assert np.mean(curve[-4:]) < 0.9 * np.mean(curve[:4])
    assert chosen.eval().look(box_scenes())["pca"].shape == (500, 3)


def test_values_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mask_ratio in \(0, 0\.5\]"):
        method(mask_ratio=0.6)

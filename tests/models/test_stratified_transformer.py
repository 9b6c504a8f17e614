"""Stratified Transformer: its size, who looks at whom, its layers against plain loops, scenes apart from each other."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pointloom.methods.mm3dscene import HeadPlan, MaskPlan, MM3DScene
from pointloom.models.scene_geometry import Neighbors
from pointloom.models.stratified_transformer import (
    ContextualAttention,
    StratifiedTransformer,
    _Convolution,
    _cube_directions,
    _first_of_scene,
    stratified_transformer,
    stratified_transformer_scannet,
    stratified_transformer_tiny,
)
from pointloom.models.stratified_windows import WindowPairs, window_pairs
from pointloom.ops import farthest_point_sampling_ragged, knn_ragged
from pointloom.structures import SceneEncoder
from pointloom.tasks.scene_segmentation import SceneSegmentation
from tests.models.scenes import box_scenes

SMALL: dict[str, Any] = {
    "dims": (8, 12, 16), "depths": (2, 1, 1), "num_heads": (2, 3, 2), "window": 2, "key_stride": 8, "drop_path": 0.0,
    "voxel_size": 0.1,
}  # fmt: skip


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_networks_have_the_published_sizes() -> None:
    model = stratified_transformer()
    assert parameters(model) == 8_019_840
    whole = SceneSegmentation(
        model, num_classes=13, class_weight=None, freeze_encoder=False, features="finest", head="mlp", lovasz_weight=0.0
    )
    assert parameters(whole) == 8_022_925  # 8.02M in table 11 of MM-3DScene
    assert parameters(stratified_transformer_scannet()) == 18_795_048


@pytest.mark.parametrize("shifted", [False, True])
def test_pairs_are_those_of_the_definition(shifted: bool) -> None:
    rng = np.random.default_rng(0)
    sizes, size, step = (60, 35), 0.5, 0.125
    coord = np.concatenate([rng.random((n, 3)) * [2.1, 1.7, 1.2] + k for k, n in enumerate(sizes)]).astype(np.float32)
    scene, few = np.repeat([0, 1], sizes), rng.random(95) < 0.2
    found = window_pairs(
        torch.from_numpy(coord), torch.tensor([60, 95]), torch.from_numpy(few), size=size, step=step, shifted=shifted
    )
    place = coord - np.stack([coord[scene == k].min(0) for k in scene])
    window, wide = (np.floor((place + (edge / 2 if shifted else 0)) / edge) for edge in (size, 2 * size))
    expected = {}
    for i in range(95):
        for j in range(95):
            near, far = (window[i] == window[j]).all(), few[j] and (wide[i] == wide[j]).all()
            if scene[i] == scene[j] and (near or far):
                expected[i, j] = np.clip(np.floor((place[i] - place[j] + 2 * size) / step + 1e-4), 0, 15).tolist()
    assert found.num_places == 16
    assert len(found.query) == len(expected)
    pairs = zip(found.query.tolist(), found.key.tolist(), strict=True)
    assert dict(zip(pairs, found.place.tolist(), strict=True)) == expected
    assert any(not (window[i] == window[j]).all() for i, j in expected), "some pairs are stratified ones"


def plain_attention(layer: ContextualAttention, x: Tensor, pairs: WindowPairs) -> Tensor:
    """Section 3.3, one point and head after the other."""
    width = x.shape[1] // layer.num_heads
    query, key, value = layer.qkv(x).view(len(x), 3, layer.num_heads, width).unbind(1)
    out = []
    for i in range(len(x)):
        mine = torch.nonzero(pairs.query == i).squeeze(1).tolist()
        for head in range(layer.num_heads):
            logits, values = [], []
            for pair in mine:
                j, places = int(pairs.key[pair]), pairs.place[pair].tolist()
                of_query, of_key, of_value = (
                    sum(table[axis, place, head] for axis, place in enumerate(places))
                    for table in (layer.query_places, layer.key_places, layer.value_places)
                )
                scaled = query[i, head] / width**0.5
                logits.append(scaled @ key[j, head] + scaled @ of_query + key[j, head] @ of_key)
                values.append(value[j, head] + of_value)
            out.append(torch.stack(logits).softmax(0) @ torch.stack(values))
    return layer.proj(torch.stack(out).view(len(x), -1))


def test_attention_equals_the_formula() -> None:
    layer = ContextualAttention(8, num_heads=2, num_places=16)
    for table in (layer.query_places, layer.key_places, layer.value_places):
        nn.init.normal_(table)
    coord, few = torch.rand(14, 3), torch.arange(14) % 3 == 0
    pairs = window_pairs(coord, torch.tensor([14]), few, size=0.4, step=0.1, shifted=False)
    x = torch.randn(14, 8, requires_grad=True)
    ours, plain = layer(x, pairs), plain_attention(layer, x, pairs)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    direction, given = torch.randn_like(ours), [x, *layer.parameters()]
    for own, expected in zip(
        torch.autograd.grad((ours * direction).sum(), given),
        torch.autograd.grad((plain * direction).sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-4)


def test_convolution_equals_the_formula_and_skips_repeated_points() -> None:
    layer = _Convolution(2, 5, reach=0.4, norm=False)
    coord, offset, feature = torch.rand(11, 3), torch.tensor([8, 11]), torch.randn(11, 2)
    index = knn_ragged(coord, offset, coord, offset, 6, repeat=True)
    near = Neighbors(index=index, relative=coord[index] - coord.unsqueeze(1))
    known = torch.arange(6) < torch.tensor([8] * 8 + [3] * 3).unsqueeze(1)
    kernel = 1.5 * 0.4 * _cube_directions()
    expected = torch.zeros(11, 5)
    for i in range(11):
        for j in dict.fromkeys(index[i].tolist()):
            for k, point in enumerate(kernel):
                influence = max(0.0, 1 - float((coord[j] - coord[i] - point).norm()) / 0.4)
                expected[i] += influence * feature[j] @ layer.weight[2 * k : 2 * k + 2]
    torch.testing.assert_close(layer(feature, near, known), expected, rtol=1e-4, atol=1e-5)
    assert kernel.unique(dim=0).shape == (15, 3)


def test_points_seen_from_afar_are_farthest_points() -> None:
    batch = box_scenes((90, 41), edge=2.0)
    model = StratifiedTransformer(**SMALL)
    seen: list[Tensor] = []

    def spied(coord: Tensor, offset: Tensor, far: Tensor, **_: Any) -> WindowPairs:
        seen.append(coord[far])
        return window_pairs(coord, offset, far, **_)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[StratifiedTransformer.__module__], "window_pairs", spied)
        levels = model(batch)
    for coord, offset, count in ((batch.coord, batch.offset, (12, 6)), (levels[1].coord, levels[1].offset, (3, 2))):
        farthest = coord[farthest_point_sampling_ragged(coord, offset, torch.tensor(count))]
        found = seen.pop(0)
        assert {tuple(row) for row in found.tolist()} == {tuple(row) for row in farthest.tolist()}
        if coord is batch.coord:
            assert torch.equal(found, seen.pop(0)), "both kinds of windows have the same far points"
    assert _first_of_scene(torch.tensor([3, 4]), torch.tensor([7, 9]), 4).tolist() == [True, True, False, True]


def test_scenes_of_a_batch_do_not_disturb_each_other() -> None:
    model = StratifiedTransformer(**SMALL).eval()
    batch = box_scenes((60, 9, 84))  # the second one has fewer points than some neighbourhoods
    with torch.no_grad():
        together = model(batch)
        for i in range(3):
            for level, own in zip(together, model(batch.part(i, i + 1)), strict=True):
                first = 0 if i == 0 else int(level.offset[i - 1])
                torch.testing.assert_close(level.feature[first : level.offset[i]], own.feature, rtol=1e-4, atol=1e-5)


def test_levels_lie_on_the_input_points_and_spread_gives_all_features() -> None:
    model, batch = stratified_transformer_tiny().eval(), box_scenes((300, 200), edge=2.0)
    assert isinstance(model, SceneEncoder)
    with torch.no_grad():
        levels = model(batch)
        spread = model.spread(levels, batch.coord, batch.offset)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(batch)[0].feature
    assert torch.equal(levels[0].coord, batch.coord)
    assert [level.feature.shape[1] for level in levels] == list(model.dims)
    assert spread.shape == (500, sum(model.dims))
    torch.testing.assert_close(spread[:, : model.dims[0]], levels[0].feature, rtol=1e-4, atol=1e-4)
    assert (rough - levels[0].feature).abs().max() < 0.05 * levels[0].feature.abs().max()


@pytest.mark.parametrize("depths", [(2, 1, 1), (0, 2, 1)])
def test_every_parameter_gets_a_gradient_and_dropped_paths_differ(depths: tuple[int, ...]) -> None:
    model, batch = StratifiedTransformer(**SMALL | {"depths": depths, "drop_path": 0.5}), box_scenes((150, 120))
    levels = model(batch)
    assert not torch.equal(levels[-1].feature, model(batch)[-1].feature)
    total = sum((level.feature * torch.randn_like(level.feature)).sum() for level in levels)
    assert isinstance(total, Tensor)
    total.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    model.eval()
    assert torch.equal(model(batch)[0].feature, model(batch)[0].feature)


def test_pairs_per_point_do_not_grow_with_the_scene() -> None:
    def pairs_per_point(side: int) -> float:
        """Of a floor with a point in every voxel of 4 cm."""
        x, y = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        coord = 0.04 * torch.stack([x, y, torch.zeros_like(x)], dim=-1).float().flatten(0, 1) + 0.01
        offset = torch.tensor([len(coord)])
        far = torch.arange(len(coord)) % 8 == 0
        found = window_pairs(coord, offset, far, size=0.16, step=0.01, shifted=False)
        return len(found.query) / len(coord)

    assert pairs_per_point(96) == pytest.approx(pairs_per_point(24), rel=0.01)


def test_mm3dscene_trains_it() -> None:
    plan = MaskPlan("preserved", "both", 8, "squared", "scene", (0.3, 0.8), 0.1, True)
    method = MM3DScene(
        StratifiedTransformer(**SMALL), plan=plan, head=HeadPlan(16, (2, 2), 1.0, True), reconstruction_weight=1.0,
        consistency_weight=1.0, chamfer="mean", cd_reduction="mean", temperature=0.07, max_samples=64, momentum=0.9,
    )  # fmt: skip
    losses = method(box_scenes((150, 120)))
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    encoder = method.encoder
    assert isinstance(encoder, StratifiedTransformer)
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_it_learns_which_face_of_a_box_a_point_is_on() -> None:
    torch.manual_seed(0)
    task = SceneSegmentation(
        StratifiedTransformer(**SMALL), num_classes=3, class_weight=None, freeze_encoder=False, features="finest",
        head="mlp", lovasz_weight=0.0,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(task.parameters(), lr=0.02)
    batch, losses = box_scenes((60, 50)), []
    for _ in range(15):
        optimizer.zero_grad()
        loss = task(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.8
    assert losses[-1] < 0.35


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one value per level"):
        StratifiedTransformer(**SMALL | {"depths": (1, 1)})
    with pytest.raises(ValueError, match="multiple of its heads 3, got 8"):
        StratifiedTransformer(**SMALL | {"num_heads": (3, 3, 2)})
    with pytest.raises(ValueError, match="key_stride at least 4"):
        StratifiedTransformer(**SMALL | {"key_stride": 2})

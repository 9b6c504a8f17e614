"""Point Transformer: its size, its layers against plain formulas, scenes that do not disturb each other."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.models.point_transformer import (
    PointTransformer,
    _Down,
    _VectorAttention,
    point_transformer,
    point_transformer_tiny,
)
from pointloom.models.scene_geometry import Neighbors, scene_geometry
from pointloom.ops import farthest_point_sampling_ragged
from pointloom.structures import SceneBatch, SceneEncoder


def scenes(*sizes: int) -> SceneBatch:
    total = sum(sizes)
    return SceneBatch(
        coord=torch.rand(total, 3) * torch.tensor([3.0, 4.0, 2.5]),
        color=torch.rand(total, 3),
        normal=torch.zeros(total, 3),
        offset=torch.tensor(sizes).cumsum(0),
        segment=torch.zeros(total, dtype=torch.long),
        instance=torch.zeros(total, dtype=torch.long),
        row=torch.arange(len(sizes)),
    )


def small(**changed: object) -> PointTransformer:
    values = {
        "dims": (8, 16, 24), "depths": (1, 2, 1), "strides": (4, 4), "num_neighbors": (4, 5, 6),
        "attention_norm": "batch", "voxel_size": 0.1,
    }  # fmt: skip
    return PointTransformer(**(values | changed))  # type: ignore[arg-type]


def test_published_network_has_the_published_size() -> None:
    assert sum(parameter.numel() for parameter in point_transformer().parameters()) == 7_766_180


def _randomise_norms(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.LayerNorm):
            nn.init.uniform_(layer.weight, -1, 2)
            nn.init.uniform_(layer.bias, -1, 1)
        if isinstance(layer, nn.BatchNorm1d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)


def _plain_attention(layer: _VectorAttention, feature: Tensor, near: Neighbors) -> Tensor:
    """Equation 3, one point after the other; norms see all pairs at once."""

    def normed(norm: nn.Module, pairs: Tensor) -> Tensor:
        return F.relu(norm(pairs.flatten(0, 1)).view_as(pairs))

    position = layer.position_out(normed(layer.position_norm, layer.position_in(near.relative)))
    relation = torch.stack(
        [layer.key(feature[rows]) - layer.query(feature[i]) for i, rows in enumerate(near.index)]
    )  # fmt: skip
    hidden = layer.weight_in(normed(layer.weight_norm1, relation + position))
    weight = layer.weight_out(normed(layer.weight_norm2, hidden)).softmax(1)
    out = []
    for i, rows in enumerate(near.index):
        total = torch.zeros(feature.shape[1])
        for j, row in enumerate(rows):
            value = layer.value(feature[row]) + position[i, j]
            total = total + value * weight[i, j].repeat(8)  # channel c uses weight c modulo C / 8
        out.append(total)
    return torch.stack(out)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("training", [True, False])
def test_attention_equals_the_formula(norm: str, training: bool) -> None:
    layer = _VectorAttention(16, norm=norm).train(training)
    _randomise_norms(layer)
    near = Neighbors(index=torch.randint(0, 9, (9, 4)), relative=torch.randn(9, 4, 3))
    feature = torch.randn(9, 16, requires_grad=True)
    ours, plain = layer(feature, near), _plain_attention(layer, feature, near)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    direction = torch.randn_like(ours)
    (own,) = torch.autograd.grad((ours * direction).sum(), feature)
    (expected,) = torch.autograd.grad((plain * direction).sum(), feature)
    torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-4)


def test_pooling_equals_the_layer_on_joined_coordinates_and_features() -> None:
    layer = _Down(5, 8)
    _randomise_norms(layer)
    finer = Neighbors(index=torch.randint(0, 9, (3, 4)), relative=torch.randn(3, 4, 3))
    feature = torch.randn(9, 5)
    joined = layer.linear(torch.cat([finer.relative, feature[finer.index]], dim=-1))
    normed = F.batch_norm(joined.flatten(0, 1), None, None, layer.norm.weight, layer.norm.bias, training=True)
    torch.testing.assert_close(layer(feature, finer), F.relu(normed).view(3, 4, 8).amax(1), rtol=1e-4, atol=1e-5)


def test_coarser_levels_are_farthest_points_of_the_finer_ones() -> None:
    batch = scenes(70, 41)
    levels, transitions = scene_geometry(batch.coord, batch.offset, strides=(4, 3), num_neighbors=(4, 4, 4))
    assert [level.offset.tolist() for level in levels] == [[70, 111], [17, 27], [5, 8]]
    for finer, level in pairwise(levels):
        counts = level.offset.diff(prepend=level.offset.new_zeros(1))
        chosen = farthest_point_sampling_ragged(finer.coord, finer.offset, counts)
        assert torch.equal(level.coord, finer.coord[chosen])
    for transition, (finer, level) in zip(transitions, pairwise(levels), strict=True):
        torch.testing.assert_close(
            transition.finer.relative, finer.coord[transition.finer.index] - level.coord[:, None]
        )
        assert transition.coarser.shape == (len(finer.coord), 3)


def test_scenes_of_a_batch_do_not_disturb_each_other() -> None:
    model = small().eval()
    _randomise_norms(model)
    batch = scenes(50, 9, 64)  # the second one has no more points than some neighbourhoods
    with torch.no_grad():
        together = model(batch)
        start = 0
        for i, end in enumerate(batch.offset.tolist()):
            alone = SceneBatch(**{k: v[start:end] for k, v in vars(batch).items() if k not in {"offset", "row"}},
                               offset=torch.tensor([end - start]), row=batch.row[i : i + 1])  # fmt: skip
            for level, own in zip(together, model(alone), strict=True):
                first = 0 if i == 0 else int(level.offset[i - 1])
                torch.testing.assert_close(level.feature[first : level.offset[i]], own.feature, rtol=1e-4, atol=1e-5)
            start = end


def test_levels_lie_on_the_input_points_and_spread_gives_all_features() -> None:
    model = point_transformer_tiny()
    assert isinstance(model, SceneEncoder)
    batch = scenes(300, 200)
    levels = model(batch)
    assert torch.equal(levels[0].coord, batch.coord)
    assert [level.feature.shape[1] for level in levels] == list(model.dims)
    spread = model.spread(levels, batch.coord, batch.offset)
    assert spread.shape == (500, sum(model.dims))
    torch.testing.assert_close(spread[:, : model.dims[0]], levels[0].feature, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_every_parameter_gets_a_gradient(norm: str) -> None:
    model = small(attention_norm=norm)
    total = sum((level.feature * torch.randn_like(level.feature)).sum() for level in model(scenes(90, 70)))
    assert isinstance(total, Tensor)
    total.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


def test_half_precision_stays_close() -> None:
    model, batch = small().eval(), scenes(120)
    with torch.no_grad():
        exact = model(batch)[0].feature
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(batch)[0].feature
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one value per level"):
        small(depths=(1, 1))
    with pytest.raises(ValueError, match="multiple of 8, got 12"):
        small(dims=(8, 12, 24))
    with pytest.raises(ValueError, match="attention_norm is batch or layer, got 'group'"):
        small(attention_norm="group")
    with pytest.raises(ValueError, match="batch of 20 points leaves one place"):
        small().train()(scenes(20))

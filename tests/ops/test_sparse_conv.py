"""Sparse convolutions equal dense ones at the occupied voxels."""

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pointloom.ops.sparse_conv import KernelMap, child_map, neighbor_map, sparse_convolution
from pointloom.ops.voxels import Voxels, voxels_at

EDGE = 7  # odd: the last plane of a strided convolution has half a cell


def occupied(num: int, *, scenes: int = 2, seed: int = 0) -> Voxels:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.cartesian_prod(*(torch.arange(EDGE),) * 3)
    place = torch.cat([cells[torch.randperm(len(cells), generator=generator)[:num]] for _ in range(scenes)])
    return voxels_at(place, torch.arange(1, scenes + 1) * num)[0]


def dense(voxels: Voxels, feature: Tensor, edge: int) -> Tensor:
    grid = feature.new_zeros(len(voxels.offset), edge, edge, edge, feature.shape[1])
    grid[(voxels.scene, *voxels.coord.unbind(1))] = feature
    return grid.permute(0, 4, 1, 2, 3)


def at(grid: Tensor, voxels: Voxels) -> Tensor:
    return grid.permute(0, 2, 3, 4, 1)[(voxels.scene, *voxels.coord.unbind(1))]


def dense_weight(weight: Tensor) -> Tensor:
    return weight.permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_submanifold_convolution_equals_the_dense_one(kernel_size: int) -> None:
    voxels = occupied(90)
    feature = torch.randn(len(voxels.key), 4)
    weight = torch.randn(5, kernel_size, kernel_size, kernel_size, 4)
    ours = sparse_convolution(feature, weight, neighbor_map(voxels, kernel_size))
    expected = F.conv3d(dense(voxels, feature, EDGE), dense_weight(weight), padding=kernel_size // 2)
    torch.testing.assert_close(ours, at(expected, voxels), atol=1e-5, rtol=1e-5)


def test_strided_convolution_equals_the_dense_one_on_odd_grids() -> None:
    voxels = occupied(90)
    coarser, parent = voxels.parents()
    feature, weight = torch.randn(len(voxels.key), 4), torch.randn(5, 2, 2, 2, 4)
    ours = sparse_convolution(feature, weight, child_map(voxels, parent, len(coarser.key)))
    expected = F.conv3d(dense(voxels, feature, EDGE + 1), dense_weight(weight), stride=2)
    torch.testing.assert_close(ours, at(expected, coarser), atol=1e-5, rtol=1e-5)


def test_transposed_convolution_equals_the_dense_one_and_returns_to_the_same_voxels() -> None:
    voxels = occupied(90)
    coarser, parent = voxels.parents()
    feature, weight = torch.randn(len(coarser.key), 4), torch.randn(5, 2, 2, 2, 4)
    ours = sparse_convolution(feature, weight, child_map(voxels, parent, len(coarser.key)).reversed())
    kernel = weight.permute(4, 0, 1, 2, 3)
    expected = F.conv_transpose3d(dense(coarser, feature, EDGE // 2 + 1), kernel, stride=2)
    torch.testing.assert_close(ours, at(expected, voxels), atol=1e-5, rtol=1e-5)


def test_no_voxel_of_a_full_odd_grid_is_dropped() -> None:
    voxels, _ = voxels_at(torch.cartesian_prod(*(torch.arange(5),) * 3), torch.tensor([125]))
    coarser, parent = voxels.parents()
    assert len(coarser.key) == 27
    assert len(child_map(voxels, parent, 27).source) == 125


def test_features_do_not_cross_between_scenes() -> None:
    voxels = occupied(90)
    feature, weight = torch.randn(len(voxels.key), 4), torch.randn(4, 3, 3, 3, 4)
    kernel_map = neighbor_map(voxels, 3)
    before = sparse_convolution(feature, weight, kernel_map)
    changed = torch.where((voxels.scene == 1)[:, None], feature + 1, feature)
    after = sparse_convolution(changed, weight, kernel_map)
    assert torch.equal(before[voxels.scene == 0], after[voxels.scene == 0])
    assert not torch.equal(before[voxels.scene == 1], after[voxels.scene == 1])


def maps() -> list[tuple[str, KernelMap, int]]:
    voxels = occupied(12)
    coarser, parent = voxels.parents()
    children = child_map(voxels, parent, len(coarser.key))
    return [("submanifold", neighbor_map(voxels, 3), 3), ("strided", children, 2), ("up", children.reversed(), 2)]


@pytest.mark.parametrize("number", range(3))
def test_gradients_are_those_of_finite_differences(number: int) -> None:
    _, kernel_map, edge = maps()[number]
    feature = torch.randn(kernel_map.num_source, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, edge, edge, edge, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, w: sparse_convolution(f, w, kernel_map), (feature, weight))


def test_a_single_voxel_meets_only_the_middle_of_the_kernel() -> None:
    voxels, _ = voxels_at(torch.tensor([[65535, 0, 65535]]), torch.tensor([1]))
    weight = torch.randn(2, 3, 3, 3, 4)
    feature = torch.randn(1, 4)
    ours = sparse_convolution(feature, weight, neighbor_map(voxels, 3))
    torch.testing.assert_close(ours, feature @ weight[:, 1, 1, 1].t())


def test_more_pairs_than_fit_into_the_cache_at_once_give_the_same() -> None:
    place = torch.cartesian_prod(*(torch.arange(18),) * 3)  # 4,913 pairs and more at every place of the kernel
    voxels, _ = voxels_at(place, torch.tensor([len(place)]))
    feature, weight = torch.randn(len(place), 2), torch.randn(2, 3, 3, 3, 2)
    ours = sparse_convolution(feature, weight, neighbor_map(voxels, 3))
    expected = F.conv3d(dense(voxels, feature, 18), dense_weight(weight), padding=1)
    torch.testing.assert_close(ours, at(expected, voxels), atol=1e-5, rtol=1e-5)


def test_pairs_are_neighbours_at_the_place_of_the_kernel() -> None:
    voxels = occupied(60)
    kernel_map, start = neighbor_map(voxels, 3), 0
    for step, end in zip(product((-1, 0, 1), repeat=3), kernel_map.ends, strict=True):
        source, target = kernel_map.source[start:end], kernel_map.target[start:end]
        assert torch.equal(voxels.coord[source], voxels.coord[target] + torch.tensor(step))
        assert torch.equal(voxels.scene[source], voxels.scene[target])
        assert len(target.unique()) == len(target)
        start = end


def test_wrong_maps_and_even_kernels_are_refused() -> None:
    voxels = occupied(12)
    with pytest.raises(ValueError, match="odd kernel size, got 2"):
        neighbor_map(voxels, 2)
    with pytest.raises(ValueError, match="the kernel map is for 24 rows and 27 places of a kernel, got 24 and 8"):
        sparse_convolution(torch.randn(24, 2), torch.randn(2, 2, 2, 2, 2), neighbor_map(voxels, 3))


def test_mixed_precision_on_a_cpu_stays_in_single_precision() -> None:
    voxels = occupied(90)
    feature, weight = torch.randn(len(voxels.key), 4), torch.randn(5, 3, 3, 3, 4)
    kernel_map = neighbor_map(voxels, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = sparse_convolution(feature, weight, kernel_map)
    assert torch.equal(low, sparse_convolution(feature, weight, kernel_map))

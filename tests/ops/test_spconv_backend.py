"""The spconv backend equals the torch one where it is installed, and says what to install where it is not."""

import importlib.util

import pytest
import torch

from pointloom.errors import BackendError
from pointloom.ops import spconv_backend
from pointloom.ops.sparse_conv import KernelMap, child_map, neighbor_map, sparse_convolution
from pointloom.ops.voxels import voxels_at


def kernel_map(kind: str) -> KernelMap:
    place = torch.cartesian_prod(*(torch.arange(7),) * 3)
    place = place[torch.rand(len(place)) < 0.4]
    voxels, _ = voxels_at(place, torch.tensor([len(place)]))
    if kind == "submanifold":
        return neighbor_map(voxels, 3)
    coarser, parent = voxels.parents()
    children = child_map(voxels, parent, len(coarser.key))
    return children if kind == "strided" else children.reversed()


@pytest.mark.skipif(importlib.util.find_spec("spconv") is None, reason="spconv is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["submanifold", "strided", "transposed"])
def test_results_and_gradients_equal_those_of_the_torch_backend(kind: str) -> None:
    chosen = kernel_map(kind)
    edge = 3 if kind == "submanifold" else 2
    feature = torch.randn(chosen.num_source, 8, requires_grad=True)
    weight = torch.randn(16, edge, edge, edge, 8, requires_grad=True)
    gradient = torch.randn(chosen.num_target, 16)
    results = []
    for backend in ("torch", "spconv"):
        out = sparse_convolution(feature, weight, chosen, backend=backend)
        results.append([out.detach(), *torch.autograd.grad(out, (feature, weight), gradient)])
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_a_missing_package_and_unknown_names_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    chosen = kernel_map("strided")
    arguments = (torch.randn(chosen.num_source, 2), torch.randn(2, 2, 2, 2, 2), chosen)
    monkeypatch.setattr(spconv_backend, "import_module", absent)
    monkeypatch.setenv("POINTLOOM_SPARSE_BACKEND", "spconv")
    with pytest.raises(BackendError, match=r"needs the package spconv .* pip install spconv"):
        sparse_convolution(*arguments)
    with pytest.raises(BackendError, match="unknown backend 'minkowski' of sparse convolutions; known: torch, spconv"):
        sparse_convolution(*arguments, backend="minkowski")

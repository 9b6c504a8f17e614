"""Sparse convolutions and HUNet on the device against the CPU, and without waiting for the device."""

from copy import deepcopy

import pytest
import torch

from pointloom.models import build_scene_encoder
from pointloom.ops.sparse_conv import KernelMap, child_map, neighbor_map, sparse_convolution
from pointloom.ops.voxels import voxels_at
from pointloom.structures import SceneBatch, as_module

pytestmark = pytest.mark.gpu

PLACE = torch.cat([torch.cartesian_prod(*(torch.arange(9),) * 3)[torch.randperm(729)[:300]] for _ in range(2)])
OFFSET = torch.tensor([300, 600])


def maps(device: torch.device) -> list[tuple[KernelMap, int, int]]:
    voxels, _ = voxels_at(PLACE.to(device), OFFSET.to(device))
    coarser, parent = voxels.parents()
    children = child_map(voxels, parent, len(coarser.key))
    return [(neighbor_map(voxels, 3), 3, 600), (children, 2, 600), (children.reversed(), 2, len(coarser.key))]


@pytest.mark.parametrize("number", range(3))
def test_convolution_and_gradients_are_those_of_the_cpu(number: int, device: torch.device) -> None:
    found = []
    for where in (torch.device("cpu"), device):
        kernel_map, edge, num = maps(where)[number]
        torch.manual_seed(0)
        inputs = [torch.randn(num, 8), torch.randn(16, edge, edge, edge, 8)]
        inputs = [value.to(where).requires_grad_() for value in inputs]
        out = sparse_convolution(inputs[0], inputs[1], kernel_map)
        gradients = torch.autograd.grad((out * torch.arange(16.0, device=where)).sum(), inputs)
        found.append([out, *gradients])
    for on_cpu, on_device in zip(*found, strict=True):
        torch.testing.assert_close(on_device.cpu(), on_cpu, atol=1e-5 * float(on_cpu.detach().abs().max()), rtol=1e-4)


def test_a_convolution_never_waits_for_the_device(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("only CUDA tells when it is waited for")
    for kernel_map, edge, num in maps(device):
        feature = torch.randn(num, 8, device=device, requires_grad=True)
        weight = torch.randn(16, edge, edge, edge, 8, device=device, requires_grad=True)
        torch.cuda.set_sync_debug_mode("error")
        try:
            sparse_convolution(feature, weight, kernel_map).sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_features_of_hunet_are_those_of_the_cpu(device: torch.device) -> None:
    torch.manual_seed(0)
    encoder = as_module(build_scene_encoder("hunet_tiny")).eval()
    coord = torch.rand(4000, 3) * torch.tensor([3.0, 3.0, 0.3])
    unknown = torch.full((4000,), -1)
    scenes = SceneBatch(
        coord=coord, color=torch.rand(4000, 3), normal=torch.randn(4000, 3), offset=torch.tensor([1500, 4000]),
        segment=unknown, instance=unknown, row=torch.tensor([0, 1]),
    )  # fmt: skip
    with torch.inference_mode():
        on_cpu, on_device = (deepcopy(encoder).to(where)(scenes.to(where)) for where in (torch.device("cpu"), device))
    for level, other in zip(on_cpu, on_device, strict=True):
        torch.testing.assert_close(other.coord.cpu(), level.coord)
        torch.testing.assert_close(other.feature.cpu(), level.feature, atol=1e-3, rtol=1e-3)

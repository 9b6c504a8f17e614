"""Sparse convolutions by the package spconv, where it is installed, with our kernel maps and its native algorithm."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointloom.errors import BackendError

if TYPE_CHECKING:
    from pointloom.ops.sparse_conv import KernelMap


def spconv_convolution(feature: Tensor, weight: Tensor, kernel_map: "KernelMap") -> Tensor:
    """Convolve as ``sparse_convolution`` does.

    Raises:
        BackendError: spconv is not installed.
    """
    return _SpconvConvolution.apply(feature, weight, kernel_map, _spconv_operations())  # type: ignore[no-untyped-call]


def _spconv_operations() -> Any:
    try:
        operations: Any = import_module("spconv.pytorch.ops")
    except ImportError as error:
        raise BackendError(
            f"the spconv backend needs the package spconv ({error}): pip install spconv (CPU) or the spconv-cu... of "
            "your CUDA version; the torch backend needs nothing"
        ) from error
    if not torch.cuda.is_available():
        operations.get_current_stream = lambda: 0  # its backward pass asks for a CUDA stream on a CPU, too
    return operations


class _SpconvConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature: Tensor, weight: Tensor, kernel_map: "KernelMap", operations: Any) -> Tensor:
        ctx.save_for_backward(feature, weight)
        ctx.kernel_map, ctx.operations = kernel_map, operations
        table, counts = kernel_map.table
        return operations.indice_conv(feature.contiguous(), weight.contiguous(), table, counts, kernel_map.num_target)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        feature, weight = ctx.saved_tensors
        table, counts = ctx.kernel_map.table
        of_feature, of_weight = ctx.operations.indice_conv_backward(
            feature.contiguous(), weight.contiguous(), gradient.to(feature.dtype).contiguous(), table, counts
        )
        return of_feature, of_weight, None, None

"""Batch normalisation and ReLU over the members of patches, fused on the CPU."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.ops.arrays import shared_array
from pointloom.ops.backend import choose_backend
from pointloom.ops.gather import num_processes
from pointloom.ops.norm_passes import gradient_sums, input_gradient, moments, normed_relu

_KERNEL_TYPES = (torch.float32, torch.bfloat16)


def norm_relu(
    x: Float[Tensor, "p k c"], patch: Float[Tensor, "p c"], norm: nn.BatchNorm1d, *, backend: str | None = None
) -> Float[Tensor, "p k c"]:
    """Return ``relu(norm(x + patch))``, where ``patch`` is the same for all members of a patch.

    Args:
        x: A vector per member of every patch.
        patch: What is added to all members of a patch.
        norm: Its statistics are those of all members of all patches; its running ones are updated while training.
        backend: One of ``BACKENDS``; None lets ``choose_backend`` decide. ``torch`` does one step after the other.
    """
    if not is_fused(x, norm, backend):
        joined = x + patch.unsqueeze(1)
        return F.relu(norm(joined.flatten(0, 1))).view_as(joined)
    out, mean, variance = _NormRelu.apply(x, patch, norm.weight, norm.bias, norm.eps)  # type: ignore[no-untyped-call]
    update_statistics(norm, mean, variance, count=x.shape[0] * x.shape[1])
    return out


def is_fused(x: Tensor, norm: nn.BatchNorm1d, backend: str | None) -> bool:
    """Return whether the kernels can do it: on the CPU, in one process, while training."""
    fused = norm.training and norm.momentum is not None and norm.weight.dtype == torch.float32 and num_processes() == 1
    return fused and x.dtype in _KERNEL_TYPES and choose_backend(x.device, backend) == "numba"


@torch.no_grad()
def update_statistics(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, *, count: int) -> None:
    """Move the running statistics towards mean and biased variance of ``count`` members."""
    norm.running_mean.lerp_(mean, norm.momentum)  # type: ignore[union-attr, arg-type]
    norm.running_var.lerp_(variance * (count / max(count - 1, 1)), norm.momentum)  # type: ignore[union-attr, arg-type]
    norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]


class _NormRelu(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes them by position
        ctx: Any, x: Tensor, patch: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, added = x.contiguous(), patch.float().contiguous()
        mean, variance = torch.empty_like(weight), torch.empty_like(weight)
        moments(shared_array(x), shared_array(added), mean.numpy(), variance.numpy())
        inverse = (variance + eps).rsqrt()
        out = torch.empty_like(x)
        scale = tuple(shared_array(each) for each in (mean, inverse, weight, bias))
        normed_relu(shared_array(x), shared_array(added), scale, shared_array(out))
        ctx.save_for_backward(x, added, mean, inverse, weight, bias)
        ctx.patch_type = patch.dtype
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, added, *scales = ctx.saved_tensors
        share, rows, patch = (shared_array(each) for each in (gradient.to(x.dtype), x, added))
        scale = tuple(shared_array(each) for each in scales)
        sums = gradient_sums(share, rows, patch, scale)
        of_x, of_patch = torch.empty_like(x), torch.empty_like(added)
        input_gradient(share, rows, patch, scale, sums, shared_array(of_x), shared_array(of_patch))
        of_weight, of_bias = torch.from_numpy(sums.astype("float32"))
        return of_x, of_patch.to(ctx.patch_type), of_weight, of_bias, None

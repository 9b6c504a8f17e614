"""Batch normalisation with the statistics of all processes, on CPUs too (torch's own needs GPUs)."""

from typing import Any

import torch
from torch import Tensor, nn

from pointloom.ops.gather import num_processes, stack_over_processes, sum_over_processes


class SharedBatchNorm(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` whose statistics while training are those of the rows of all processes.

    Alone, and in evaluation mode, it is the plain layer. Channels are dimension 1, whatever dimensions follow.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected rows of channels, got {input.dim()} dimension(s)")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every channel."""
        if not self.training or num_processes() == 1:
            return super().forward(x)
        out, mean, variance, count = _SharedNorm.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * (count / (count - 1).clamp_min(1)), momentum)
        return out


class _SharedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        ctx.others = [0, *range(2, x.dim())]
        values = x.float()
        variance, mean = torch.var_mean(values, ctx.others, correction=0)
        count = torch.full_like(mean[:1], values.numel() / len(mean))
        counts, means, variances = stack_over_processes(torch.cat([count, mean, variance])).split(
            [1, len(mean), len(mean)], dim=1
        )
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (counts * (variances + (means - mean).square())).sum(0) / total
        ctx.shape = [1, -1] + [1] * (x.dim() - 2)
        inverse = (variance + eps).rsqrt()
        normed = (values - mean.view(ctx.shape)) * inverse.view(ctx.shape)
        ctx.save_for_backward(normed, weight, inverse, total)
        ctx.mark_non_differentiable(mean, variance, total)
        if weight is not None and bias is not None:
            normed = normed * weight.view(ctx.shape) + bias.view(ctx.shape)
        return normed.to(x.dtype), mean, variance, total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        normed, weight, inverse, total = ctx.saved_tensors
        dtype, gradient = gradient.dtype, gradient.float()
        of_bias, of_weight = gradient.sum(ctx.others), (gradient * normed).sum(ctx.others)
        mean, slope = (sum_over_processes(torch.stack([of_bias, of_weight])) / total).unbind()
        of_x = (gradient - mean.view(ctx.shape) - normed * slope.view(ctx.shape)) * inverse.view(ctx.shape)
        if weight is None:
            return of_x.to(dtype), None, None, None
        return (of_x * weight.view(ctx.shape)).to(dtype), of_weight, of_bias, None


def share_batch_statistics(module: nn.Module) -> None:
    """Replace every batch normalisation inside a module by one that shares its statistics, with the same weights."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, SharedBatchNorm):
            setattr(module, name, _shared(child))
        else:
            share_batch_statistics(child)


def _shared(norm: nn.modules.batchnorm._BatchNorm) -> SharedBatchNorm:
    made = SharedBatchNorm(
        norm.num_features, norm.eps, norm.momentum, affine=norm.affine, track_running_stats=norm.track_running_stats
    )
    made.weight, made.bias = norm.weight, norm.bias
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    made.num_batches_tracked = norm.num_batches_tracked
    made.training = norm.training
    return made

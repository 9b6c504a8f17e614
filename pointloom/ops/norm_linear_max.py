"""Batch norm, ReLU, a linear layer and the maximum over the members of patches, in pieces that stay in the caches."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.ops.arrays import shared_array
from pointloom.ops.linear_max import PIECE, find_winners, linear_max, winners_backward
from pointloom.ops.norm_passes import gradient_sums, input_gradient, moments, normed_relu
from pointloom.ops.norm_relu import is_fused, norm_relu, update_statistics


def norm_linear_max(
    x: Float[Tensor, "p k c"],
    patch: Float[Tensor, "p c"],
    norm: nn.BatchNorm1d,
    weight: Float[Tensor, "d c"],
    *,
    kept: Int[Tensor, " v"] | None = None,
    backend: str | None = None,
) -> Float[Tensor, "v d"]:
    """Return ``linear_max(norm_relu(x, patch, norm), weight)``, of some patches or of all.

    With ``numba`` neither the normalised members nor what the layer makes of them exist as a whole: they are made piece
    by piece, in the backward pass again. Half of the memory is saved, and patches whose result nobody wants cost their
    share of the batch statistics only.

    Args:
        x: As for ``norm_relu``.
        patch: As for ``norm_relu``.
        norm: As for ``norm_relu``; its statistics are those of all patches, whatever is kept.
        weight: As for ``linear_max``.
        kept: Numbers of the patches whose result is wanted, each once; None for all.
        backend: One of ``BACKENDS``; None lets ``choose_backend`` decide.
    """
    if not is_fused(x, norm, backend) or weight.dtype != torch.float32:
        members = norm_relu(x, patch, norm, backend=backend)
        return linear_max(members if kept is None else members[kept], weight, backend=backend)
    out, mean, variance = _NormLinearMax.apply(  # type: ignore[no-untyped-call]
        x, patch, norm.weight, norm.bias, weight, kept, norm.eps
    )
    update_statistics(norm, mean, variance, count=x.shape[0] * x.shape[1])
    return out


def _pieces(x: Tensor, kept: Tensor | None) -> Iterator[tuple[slice, slice | Tensor]]:
    """Yield places in the result and the patches that go there."""
    number = len(x) if kept is None else len(kept)
    size = max(1, PIECE * torch.get_num_threads() // (x.shape[1] * x.shape[2]))
    for start in range(0, number, size):
        where = slice(start, min(start + size, number))
        yield where, where if kept is None else kept[where]


class _NormLinearMax(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes them by position
        ctx: Any,
        x: Tensor,
        patch: Tensor,
        weight: Tensor,
        bias: Tensor,
        layer: Tensor,
        kept: Tensor | None,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, added = x.contiguous(), patch.float().contiguous()
        mean, variance = torch.empty_like(weight), torch.empty_like(weight)
        moments(shared_array(x), shared_array(added), mean.numpy(), variance.numpy())
        inverse = (variance + eps).rsqrt()
        number = len(x) if kept is None else len(kept)
        highest, winner = torch.empty(number, len(layer)), torch.empty(number, len(layer), dtype=torch.int16)
        scale = tuple(shared_array(each) for each in (mean, inverse, weight, bias))
        for where, rows in _pieces(x, kept):
            raw = x[rows]
            members = torch.empty_like(raw)
            normed_relu(shared_array(raw), shared_array(added[rows]), scale, shared_array(members))
            feature = F.linear(members, layer)
            find_winners(shared_array(feature), highest.numpy()[where], winner.numpy()[where])
        ctx.save_for_backward(x, added, mean, inverse, weight, bias, layer, kept, winner)
        ctx.patch_type = patch.dtype
        ctx.mark_non_differentiable(mean, variance)
        return highest.to(feature.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, added, *scales, layer, kept, winner = ctx.saved_tensors
        scale = tuple(shared_array(each) for each in scales)
        share = gradient.float().contiguous().numpy()
        of_layer = np.zeros(layer.shape)  # sums of many pieces in double precision
        of_scale = np.zeros((2, layer.shape[1]))
        of_x = torch.empty_like(x) if kept is None else torch.zeros_like(x)
        for where, rows in _pieces(x, kept):
            raw, patch = shared_array(x[rows]), shared_array(added[rows])
            members = torch.empty_like(x[rows])
            normed_relu(raw, patch, scale, shared_array(members))
            piece = of_x[where] if kept is None else torch.empty_like(members)
            of_piece = np.zeros(layer.shape, dtype=np.float32)
            arrays = (shared_array(members), shared_array(layer), shared_array(piece), of_piece)
            winners_backward(share[where], winner.numpy()[where], *arrays)
            of_layer += of_piece
            of_scale += gradient_sums(shared_array(piece), raw, patch, scale)
            if kept is not None:
                of_x[rows] = piece
        of_weight, of_bias = torch.from_numpy(of_scale.astype(np.float32))
        of_patch = torch.empty_like(added)
        array = shared_array(of_x)  # the gradient of what the layer sees, overwritten row by row
        input_gradient(array, shared_array(x), shared_array(added), scale, of_scale, array, of_patch.numpy())
        of_matrix = torch.from_numpy(of_layer.astype(np.float32))
        return of_x, of_patch.to(ctx.patch_type), of_weight, of_bias, of_matrix, None, None

"""A linear layer, batch normalisation and ReLU over the members of patches; of coordinates as one linear layer."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.ops.gather import num_processes
from pointloom.ops.norm_relu import norm_relu, update_statistics

THIN = 4  # a layer is thin if its outputs are this many times as wide as its inputs


def linear_norm_relu(
    x: Float[Tensor, "p k d"], layer: nn.Linear, norm: nn.BatchNorm1d, *, backend: str | None = None
) -> Float[Tensor, "p k c"]:
    """Return ``relu(norm(layer(x)))``.

    Mean and covariance of the layer's inputs say what mean and variance its outputs have. While training on a CPU, thin
    layers use that: layer and norm become one layer, and what is between them is neither stored nor passed over.

    Args:
        x: Members of every patch.
        layer: Applied to every member.
        norm: Its statistics are those of all members of all patches; its running ones are updated while training.
        backend: As for ``norm_relu``, which is used where the layer is not thin.
    """
    thin = len(layer.weight) >= THIN * x.shape[-1]
    if not (thin and norm.training and norm.momentum is not None and x.device.type == "cpu" and num_processes() == 1):
        return norm_relu(F.linear(x, layer.weight), layer.bias.expand(len(x), -1), norm, backend=backend)
    members = x.flatten(0, 1)
    return F.relu(torch.addmm(*_fold(members, layer, norm)), inplace=True).view(*x.shape[:2], -1)


def _fold(
    x: Float[Tensor, "n d"], layer: nn.Linear, norm: nn.BatchNorm1d
) -> tuple[Float[Tensor, " c"], Float[Tensor, "n d"], Float[Tensor, "d c"]]:
    """Return a bias, x and a matrix: ``norm(layer(x))`` is ``x @ matrix + bias``; running statistics are updated."""
    with torch.autocast("cpu", enabled=False):
        center = x.mean(0)
        offset = x - center
        mean = layer(center)
        variance = (layer.weight @ (offset.T @ offset / len(x)) * layer.weight).sum(1)
        update_statistics(norm, mean.detach(), variance.detach(), count=len(x))
        scale = norm.weight * (variance + norm.eps).rsqrt()
        matrix = (layer.weight * scale.unsqueeze(1)).T.contiguous()  # laid out so that its gradient is a fast product
        return (layer.bias - mean) * scale + norm.bias, x, matrix

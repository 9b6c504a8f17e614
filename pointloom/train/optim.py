"""AdamW parameter groups and learning-rate schedules."""

import math

import torch
from torch import nn

DROPS = {
    "votenet": (0.1, (80 / 180, 120 / 180, 160 / 180)),
    "mm3dscene_detection": (0.5, (0.5, 0.7, 0.9)),
    "point_transformer": (0.1, (0.6, 0.8)),
}
"""Schedules that multiply the rate by a factor after parts of the run (official codes)."""


def parameter_groups(
    module: nn.Module, *, weight_decay: float, fast: tuple[str, ...] = (), fast_factor: float = 1.0
) -> list[dict[str, object]]:
    """Split trainable parameters: vectors, biases and tokens are not decayed, everything else is.

    This is the rule of the Point-MAE family, which goes by name: a parameter whose name contains ``token`` is not
    decayed.

    Args:
        module: What to train.
        weight_decay: Of decayed parameters.
        fast: Beginnings of the names of parameters that learn faster; all of them are decayed, as in the transfer
            protocols of ACT, ReCon and Point-PQAE.
        fast_factor: How much faster; every group carries its ``factor``.

    Raises:
        ValueError: ``fast`` names no trainable parameter.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    quick: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if fast and name.startswith(fast):
            quick.append(parameter)
            continue
        undecayed = parameter.ndim == 1 or name.endswith(".bias") or "token" in name
        (plain if undecayed else decayed).append(parameter)
    if fast and not quick:
        raise ValueError(f"no trainable parameter has a name that begins with {' or '.join(fast)}")
    groups: list[dict[str, object]] = [
        {"params": plain, "weight_decay": 0.0, "factor": 1.0},
        {"params": decayed, "weight_decay": weight_decay, "factor": 1.0},
    ]
    if quick:
        groups.append({"params": quick, "weight_decay": weight_decay, "factor": fast_factor})
    return groups


def build_optimizer(
    module: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    beta2: float,
    fast: tuple[str, ...] = (),
    fast_factor: float = 1.0,
) -> torch.optim.AdamW:
    """Build AdamW with the fused update; the decay of the mean gradient is 0.9."""
    groups = parameter_groups(module, weight_decay=weight_decay, fast=fast, fast_factor=fast_factor)
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, beta2), fused=True)


def learning_rate(
    *, schedule: str, epoch: float, epochs: int, base: float, minimum: float, warmup_epochs: float
) -> float:
    """Return the learning rate at a moment of the run.

    Args:
        schedule: ``step`` is linear warm-up, then half a cosine over the remaining time, evaluated at every step.
            ``epoch`` repeats timm 0.4.5 as the official code calls it: constant within an epoch, one epoch late, the
            cosine's phase counted from 0. The names in ``DROPS`` are linear warm-up, then steps down.
        epoch: Time since the start, in epochs (with fraction).
        epochs: Length of the run.
        base: Peak.
        minimum: Start of the warm-up and end of the cosine.
        warmup_epochs: Length of the warm-up.
    """
    if schedule == "epoch":
        late = max(math.floor(epoch) - 1, 0)
        if late < warmup_epochs:
            return minimum + late * (base - minimum) / warmup_epochs
        if late >= epochs:
            return minimum
        return minimum + 0.5 * (base - minimum) * (1 + math.cos(math.pi * late / epochs))
    if epoch < warmup_epochs:
        return minimum + (base - minimum) * epoch / warmup_epochs
    if schedule in DROPS:
        factor, parts = DROPS[schedule]
        return base * factor ** sum(epoch + 1e-6 >= part * epochs for part in parts)
    progress = (epoch - warmup_epochs) / max(epochs - warmup_epochs, 1e-9)
    return minimum + 0.5 * (base - minimum) * (1 + math.cos(math.pi * min(progress, 1.0)))

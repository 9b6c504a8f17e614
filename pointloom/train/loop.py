"""The one training loop: mixed precision, clipping, exact resume, several processes, one host sync per epoch."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pointloom.errors import CheckpointError, PointloomError
from pointloom.structures import Batch, FollowsSteps, as_module
from pointloom.train.allocator import keep_freed_memory
from pointloom.train.distributed import (
    agree,
    average_gradients,
    copy_leaders_weights,
    joined_processes,
    leaders_file,
    mean_over_processes,
    own_part,
)
from pointloom.train.interrupt import StopRequest, catch_stop_signals
from pointloom.train.optim import build_optimizer, learning_rate
from pointloom.train.processes import is_leader

logger = logging.getLogger(__name__)

SAVE_EVERY_S = float(os.environ.get("POINTLOOM_SAVE_EVERY_S", "30"))
"""How often the state is saved; on nodes that are lost often, less than is saved by it."""

STATE_FILE = "last.pt"


@runtime_checkable
class Loader(Protocol):
    """What the loop knows of data: batches that are a function of seed, epoch and step alone."""

    def __len__(self) -> int:
        """Steps per epoch."""
        ...

    def batches(self, epoch: int, *, first_step: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from ``first_step`` on."""
        ...


@dataclass(frozen=True)
class Optimization:
    """How to optimise; the fields are those of ``stages.params.OptimParams`` plus length and precision.

    Attributes:
        precision: ``bf16`` runs matrix products in bfloat16 (autocast), ``fp32`` does not.
        clip_norm: Gradient L2 norm limit, 0 = off.
        beta2: AdamW's decay of the squared gradients.
        fast: Beginnings of the names of parameters whose learning rate peaks at ``fast_factor`` times ``lr``.
        fast_factor: See ``fast``.
        double_step: Update twice per batch with the same gradients, first without clipping, as the official
            segmentation scripts of the Point-MAE family do.
        schedule_epochs: Length of the schedule, None for that of the run.
    """

    epochs: int
    lr: float
    min_lr: float
    weight_decay: float
    warmup_epochs: float
    clip_norm: float
    schedule: str
    precision: str
    beta2: float = 0.999
    fast: tuple[str, ...] = ()
    fast_factor: float = 1.0
    double_step: bool = False
    schedule_epochs: int | None = None


@dataclass
class _Progress:
    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    cpu_s: float = 0.0


def fit(
    trainable: nn.Module,
    loader: Loader,
    *,
    optimization: Optimization,
    device: torch.device,
    seed: int,
    state: Path | None,
    on_epoch: Callable[[dict[str, float]], None] = lambda _: None,
    on_step: Callable[[], None] = lambda: None,
) -> list[dict[str, float]]:
    """Train to the end of the schedule, from where a previous attempt stopped.

    Args:
        trainable: Maps a batch of the loader to losses; ``loss`` is minimised. Trained in place.
        loader: Source of batches.
        optimization: Schedule and precision.
        device: Where to train.
        seed: Seeds every random choice of the model (masks, dropout).
        state: Folder for resume state; must be unique to these parameters and data. None keeps none.
        on_epoch: Called with the row of every finished epoch (also those of earlier attempts, in order); what it adds
            to the row is kept.
        on_step: Called after every step, at first for every step of earlier attempts.

    Returns:
        A row per epoch: epoch, mean losses, learning rate, CPU seconds so far.

    Raises:
        PointloomError: A loss is not finite.
        KeyboardInterrupt: Ctrl-C; the state was saved.
    """
    keep_freed_memory()
    torch.manual_seed(seed)
    trainable.to(device).train()
    with joined_processes(trainable, device):
        run = _prepare(trainable, loader, optimization, device, state)
        for row in run.done.curve:
            on_epoch(row)
        for _ in range(run.done.epoch * len(loader) + run.done.step):
            on_step()
        with catch_stop_signals() as stop:
            while run.done.epoch < optimization.epochs:
                row = _run_epoch(run, stop, on_step)
                on_epoch(row)
                save_now = _decide(run, stop)
                if save_now or run.done.epoch == optimization.epochs:
                    run.save()
                stop.raise_if_set()
    return run.done.curve


@dataclass
class _Run:
    trainable: nn.Module
    optimizer: torch.optim.Optimizer
    loader: Loader
    optimization: Optimization
    device: torch.device
    state: Path | None
    done: _Progress
    cpu_start: float
    saved: float = field(default_factory=time.monotonic)

    def save_is_due(self) -> bool:
        return time.monotonic() - self.saved > SAVE_EVERY_S

    def save(self) -> None:
        self.done.cpu_s = time.process_time() - self.cpu_start
        if self.state is not None and is_leader():
            _save(self)
        self.saved = time.monotonic()


def _prepare(
    trainable: nn.Module, loader: Loader, optimization: Optimization, device: torch.device, state: Path | None
) -> _Run:
    """Build the optimiser and go to where an earlier attempt stopped."""
    optimizer = build_optimizer(
        trainable,
        lr=optimization.lr,
        weight_decay=optimization.weight_decay,
        beta2=optimization.beta2,
        fast=optimization.fast,
        fast_factor=optimization.fast_factor,
    )
    done = _restore(state, trainable, optimizer, device) if state else _Progress()
    copy_leaders_weights(trainable)
    return _Run(trainable, optimizer, loader, optimization, device, state, done, time.process_time() - done.cpu_s)


def _decide(run: _Run, stop: StopRequest) -> bool:
    """Return whether to save now: a signal to any process stops all of them, and the leader's clock counts."""
    signal, due = agree([stop.signal or 0, int(is_leader() and run.save_is_due())])
    if signal:
        stop.signal = signal
    return bool(signal or due)


def _run_epoch(run: _Run, stop: StopRequest, on_step: Callable[[], None]) -> dict[str, float]:
    """Train the rest of the current epoch; losses stay on the device until its end or a save."""
    done, steps, schedule = run.done, len(run.loader), run.optimization
    losses: list[dict[str, Tensor]] = []
    first_step = done.step
    rate = schedule.lr
    for step, batch in enumerate(run.loader.batches(done.epoch, first_step=first_step), start=first_step):
        rate = _set_rates(run, done.epoch + step / steps)
        losses.append(_step(run, own_part(batch).to(run.device)))
        on_step()
        if step + 1 < steps and _decide(run, stop):
            _add(done, losses, first_step)
            losses, first_step, done.step = [], step + 1, step + 1
            run.save()
            stop.raise_if_set()
    _add(done, losses, first_step)
    row = {"epoch": done.epoch + 1.0, **{name: total / steps for name, total in done.sums.items()}}
    row |= {"lr": rate, "cpu_s": time.process_time() - run.cpu_start}
    done.curve.append(row)
    done.epoch, done.step, done.sums = done.epoch + 1, 0, {}
    return row


def _set_rates(run: _Run, epoch: float) -> float:
    """Set the learning rate of every group at a moment of the run and return the slow one."""
    schedule = run.optimization

    def rate(factor: float) -> float:
        return learning_rate(
            schedule=schedule.schedule,
            epoch=epoch,
            epochs=schedule.schedule_epochs or schedule.epochs,
            base=factor * schedule.lr,
            minimum=schedule.min_lr,
            warmup_epochs=schedule.warmup_epochs,
        )

    for group in run.optimizer.param_groups:
        group["lr"] = rate(group.get("factor", 1.0))
    return rate(1.0)


def _step(run: _Run, batch: Batch) -> dict[str, Tensor]:
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.optimization.precision == "bf16"):
        losses = run.trainable(batch)
    losses["loss"].backward()
    average_gradients(run.trainable.parameters())
    if run.optimization.double_step:
        run.optimizer.step()
    if run.optimization.clip_norm > 0:
        nn.utils.clip_grad_norm_(run.trainable.parameters(), run.optimization.clip_norm, foreach=True)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    if isinstance(run.trainable, FollowsSteps):
        run.trainable.after_step()
    return {name: value.detach() for name, value in losses.items()}


def _add(done: _Progress, losses: list[dict[str, Tensor]], first_step: int) -> None:
    """Move a stretch of step losses to the host at once and add them up; stop on the first that is not finite."""
    if not losses:
        return
    for name in losses[0]:
        values = mean_over_processes(torch.stack([each[name].float() for each in losses])).tolist()
        for offset, value in enumerate(values):
            if not math.isfinite(value):
                before = ", ".join(f"{v:.4g}" for v in values[max(0, offset - 5) : offset])
                raise PointloomError(
                    f"training stopped: {name} is {value} at epoch {done.epoch + 1}, step {first_step + offset + 1} "
                    f"(the steps before: {before or 'none'}); lower the learning rate, or train with precision fp32"
                )
        done.sums[name] = done.sums.get(name, 0.0) + sum(values)


def _save(run: _Run) -> None:
    """Write the training state atomically; it says nothing of the number of processes."""
    assert run.state is not None
    run.state.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "model": run.trainable.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": [torch.cuda.get_rng_state(run.device)] if run.device.type == "cuda" else [],
        "progress": vars(run.done),
    }
    temporary = run.state / (STATE_FILE + ".tmp")
    with temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(run.state / STATE_FILE)


def _restore(state: Path, trainable: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> _Progress:
    path = state / STATE_FILE
    source = leaders_file(path)
    if source is None:
        return _Progress()
    try:
        content = torch.load(source, weights_only=True, map_location="cpu")
        as_module(trainable).load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
    except Exception as error:
        raise CheckpointError(
            f"the training state {path} cannot be read ({type(error).__name__}: {error}); "
            "delete that folder to start this run anew"
        ) from error
    torch.set_rng_state(content["rng"])
    if content["cuda_rng"] and device.type == "cuda":
        torch.cuda.set_rng_state(content["cuda_rng"][0], device)
    done = _Progress(**content["progress"])
    if is_leader():
        logger.info("resuming at epoch %d, step %d from %s", done.epoch + 1, done.step, path)
    return done

"""Training in several processes as if in one: the same batches, random numbers, statistics and gradients.

The processes are started by torchrun. Each has a part of every batch. What has to be common is made common here and in
``pointloom.ops.gather``; what is the business of one process only, files and metrics, is left to the leader.
"""

import functools
import io
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from pointloom.errors import ParamsError
from pointloom.ops.gather import num_processes, sum_over_processes
from pointloom.ops.shared_norm import share_batch_statistics
from pointloom.structures import Batch, Divisible
from pointloom.train.processes import end_with_parent, is_leader, num_started

_trainings = itertools.count()
logger = logging.getLogger(__name__)

LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL error", "Timed out waiting")
"""What torch says in the processes that are left when one is killed."""


@contextmanager
def joined_processes(trainable: nn.Module, device: torch.device) -> Iterator[None]:
    """Train together with the other processes that torchrun has started while the block runs.

    Batch normalisations share their statistics from then on. Afterwards every process is alone again; after an error
    the connection is left to the end of the process, because the others may be waiting in it.

    Args:
        trainable: What is trained, changed in place.
        device: Where this process computes.

    Raises:
        SystemExit: Another process was lost; with code 1, because all of them have to start again.
    """
    if num_started() == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    _meet("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    share_batch_statistics(trainable)
    try:
        yield
    except RuntimeError as error:
        if any(sign in str(error) for sign in LOST):
            logger.error("another training process was lost (%s)", str(error).splitlines()[0][:120])
            raise SystemExit(1) from error
        raise
    agree([0])  # nobody leaves while another still needs it
    dist.destroy_process_group()


def _meet(backend: str) -> None:
    """Connect all processes, every time in another part of the store: addresses of an earlier training lead nowhere."""
    store, rank, world = _meeting_place()
    place = PrefixStore(f"training-{next(_trainings)}", store)
    dist.init_process_group(backend, store=place, rank=rank, world_size=world)


@functools.cache
def _meeting_place() -> tuple[Store, int, int]:
    """Return where the processes find each other, this one's number, and how many they are."""
    end_with_parent()
    return next(rendezvous("env://"))


def own_part(batch: Batch) -> Batch:
    """Return this process's part of a batch: consecutive rows, at most one row fewer or more than in any other.

    Raises:
        ParamsError: The batch has fewer rows than there are processes.
        TypeError: It cannot be divided.
    """
    world = num_processes()
    if world == 1:
        return batch
    if not isinstance(batch, Divisible):
        raise TypeError(f"{type(batch).__name__} has no method part() and cannot be divided among processes")
    rows, rank = len(batch), dist.get_rank()
    if rows < world:
        raise ParamsError(
            f"a batch of {rows} cannot be divided among {world} processes; raise batch_size, or start fewer processes"
        )
    return batch.part(rank * rows // world, (rank + 1) * rows // world)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace all gradients by their means over the processes; parameters that no process has used keep none."""
    world = num_processes()
    if world == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = [parameter.grad for parameter in trained]
    complete = all(gradient is not None for gradient in gradients)
    present = torch.ones(len(trained), device=trained[0].device)
    if not complete:
        present = torch.tensor([float(gradient is not None) for gradient in gradients]).to(present)
    parts = [
        torch.zeros_like(parameter, dtype=torch.float32) if gradient is None else gradient.float()
        for parameter, gradient in zip(trained, gradients, strict=True)
    ]
    together = torch.cat([part.flatten() for part in parts] + [present])
    dist.all_reduce(together)
    *means, users = (together / world).split([part.numel() for part in parts] + [len(parts)])
    used = [True] * len(parts) if complete else (users > 0).tolist()
    for parameter, mean, is_used in zip(trained, means, used, strict=True):
        parameter.grad = mean.view_as(parameter).to(parameter.dtype) if is_used else None


def mean_over_processes(values: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Return the means of numbers over the processes."""
    return sum_over_processes(values) / num_processes()


def agree(values: Sequence[int]) -> list[int]:
    """Return the largest of every number over the processes, so that all of them decide alike."""
    if num_processes() == 1:
        return list(values)
    largest = torch.tensor(values)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()


def copy_leaders_weights(trainable: nn.Module) -> None:
    """Give every process the weights and buffers of the leader."""
    if num_processes() > 1:
        for value in trainable.state_dict().values():
            dist.broadcast(value, 0)


def leaders_file(path: Path) -> Path | io.BytesIO | None:
    """Return a file of the leader, None where it has none; the others need no access to its disk."""
    if num_processes() == 1:
        return path if path.exists() else None
    content = bytearray(path.read_bytes()) if is_leader() and path.exists() else bytearray()
    (size,) = agree([len(content)])
    if size == 0:
        return None
    data = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(size, dtype=torch.uint8)
    dist.broadcast(data, 0)
    return io.BytesIO(data.numpy().tobytes())

"""Nearest neighbours and ball query, exact: float32 distances from plain differences, ties to the lower index."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointloom.kernels import pointnet2
from pointloom.kernels.balls import ball_clouds
from pointloom.kernels.nearest import knn_clouds
from pointloom.ops.backend import choose_backend
from pointloom.ops.segments import even_starts, require_clouds, require_finite, starts_of
from pointloom.ops.threads import run_parts

_MAX_PAIRS = 2**24  # distances that the torch reference holds at once
_INDEX_BITS = 32
_SEARCH = 1000  # operations of a search through many points, roughly
THREE = 3  # neighbours that pointnet2_ops has a kernel for


def knn(
    query: Float[Tensor, "b m 3"], coord: Float[Tensor, "b n 3"], k: int, *, backend: str | None = None
) -> Int[Tensor, "b m k"]:
    """Return the indices of the ``k`` points of ``coord`` nearest to every query, nearest first.

    Args:
        query: Where to look from.
        coord: The points to find, in the unit of ``query``.
        k: How many, 1 to n.
        backend: One of ``BACKENDS``; None lets ``choose_backend`` decide.

    Raises:
        ValueError: The shapes do not fit, ``k`` is not in 1..n, or (on a CPU) a coordinate is not finite or above 1e18.
    """
    require_clouds(query, coord)
    (B, M, _), N = query.shape, coord.shape[1]
    if not 1 <= k <= N:
        raise ValueError(f"cannot find {k} neighbours in clouds of {N} points; give 1 to {N}")
    query, coord = _plain(query), _plain(coord)
    chosen = choose_backend(coord.device, backend)
    if chosen == "pointnet2" and k == THREE:
        return pointnet2.three_nearest(query, coord)
    if chosen not in _KNN:
        return _in_blocks(lambda part: _knn_torch(part, coord, k), query, N)
    starts, ends = even_starts(B, M, query.device), even_starts(B, N, query.device)
    return _KNN[chosen](query.view(-1, 3), starts, coord.view(-1, 3), ends, k).view(B, M, k)


def knn_ragged(
    query: Float[Tensor, "q 3"],
    query_offset: Int[Tensor, " b"],
    coord: Float[Tensor, "p 3"],
    offset: Int[Tensor, " b"],
    k: int,
    *,
    repeat: bool = False,
    backend: str | None = None,
) -> Int[Tensor, "q k"]:
    """Find neighbours in clouds of different sizes that lie one after the other.

    Args:
        query: Where to look from.
        query_offset: Where the queries of each cloud end.
        coord: The points to find.
        offset: Where each cloud ends.
        k: How many, at most the size of the smallest cloud.
        repeat: Go round the points of a cloud that has fewer than ``k``, nearest first, instead of refusing it.
        backend: As for ``knn``.

    Returns:
        Rows of ``coord``, nearest first, all from the query's own cloud.

    Raises:
        ValueError: The offsets do not fit, a cloud has fewer than ``k`` points, or (on a CPU) a coordinate is not
            finite or above 1e18.
    """
    query_starts, starts = _paired_starts(query, query_offset, coord, offset)
    smallest = int(starts.diff().min())
    if repeat and 1 <= smallest < k:
        query, coord = _plain(query), _plain(coord)
        index = _cloud_by_cloud(
            lambda q, c: knn(q, c, min(k, c.shape[1]), backend=backend)[..., torch.arange(k) % c.shape[1]],
            query, query_starts, coord, starts,
        )  # fmt: skip
        return _as_rows(index, query_starts, starts)
    if not 1 <= k <= smallest:
        raise ValueError(f"cannot find {k} neighbours: the smallest cloud has {smallest} points")
    query, coord = _plain(query), _plain(coord)
    chosen = choose_backend(coord.device, backend)
    if chosen in _KNN:
        index = _KNN[chosen](query, query_starts, coord, starts, k)
    else:
        index = _cloud_by_cloud(lambda q, c: knn(q, c, k, backend="torch"), query, query_starts, coord, starts)
    return _as_rows(index, query_starts, starts)


def ball_query(
    query: Float[Tensor, "b m 3"],
    coord: Float[Tensor, "b n 3"],
    *,
    radius: float,
    num: int,
    backend: str | None = None,
) -> Int[Tensor, "b m num"]:
    """Return the first ``num`` points by index that are nearer than ``radius`` to each query (PointNet++, section 3.2).

    Args:
        query: Centres of the balls.
        coord: The points to find, in the unit of ``query``.
        radius: Radius of the balls, above 0; points at exactly this distance are outside.
        num: Length of the result, at least 1. A ball with fewer points repeats its first; one without any point has
            index 0 everywhere, as in the published extension.
        backend: One of ``BACKENDS``; None lets ``choose_backend`` decide.

    Raises:
        ValueError: The shapes do not fit, clouds are empty, ``radius`` or ``num`` is out of range, or (on a CPU) a
            coordinate is not finite or above 1e18.
    """
    _check_ball(radius, num)
    require_clouds(query, coord)
    (B, M, _), N = query.shape, coord.shape[1]
    if N == 0:
        raise ValueError("cannot look for points in clouds of 0 points")
    query, coord = _plain(query), _plain(coord)
    chosen = choose_backend(coord.device, backend)
    if chosen == "pointnet2":
        return pointnet2.in_ball(query, coord, radius=radius, num=num)
    if chosen not in _BALL:
        return _in_blocks(lambda part: _ball_torch(part, coord, radius, num), query, N)
    starts, ends = even_starts(B, M, query.device), even_starts(B, N, query.device)
    return _BALL[chosen](query.view(-1, 3), starts, coord.view(-1, 3), ends, radius, num).view(B, M, num)


def ball_query_ragged(
    query: Float[Tensor, "q 3"],
    query_offset: Int[Tensor, " b"],
    coord: Float[Tensor, "p 3"],
    offset: Int[Tensor, " b"],
    *,
    radius: float,
    num: int,
    backend: str | None = None,
) -> Int[Tensor, "q num"]:
    """Find the points in balls in clouds of different sizes that lie one after the other.

    Args:
        query: Centres of the balls.
        query_offset: Where the queries of each cloud end.
        coord: The points to find.
        offset: Where each cloud ends.
        radius: As for ``ball_query``.
        num: As for ``ball_query``; a ball without any point has the first point of its cloud everywhere.
        backend: As for ``ball_query``.

    Returns:
        Rows of ``coord``, all from the query's own cloud.

    Raises:
        ValueError: The offsets do not fit, ``radius`` or ``num`` is out of range, or (on a CPU) a coordinate is not
            finite or above 1e18.
    """
    _check_ball(radius, num)
    query_starts, starts = _paired_starts(query, query_offset, coord, offset)
    query, coord = _plain(query), _plain(coord)
    chosen = choose_backend(coord.device, backend)
    if chosen in _BALL:
        index = _BALL[chosen](query, query_starts, coord, starts, radius, num)
    else:
        index = _cloud_by_cloud(
            lambda q, c: ball_query(q, c, radius=radius, num=num, backend="torch"), query, query_starts, coord, starts
        )
    return _as_rows(index, query_starts, starts)


def _plain(coord: Float[Tensor, "*rows 3"]) -> Float[Tensor, "*rows 3"]:
    coord = coord.detach().float().contiguous()
    require_finite(coord)
    return coord


def _check_ball(radius: float, num: int) -> None:
    if not radius > 0 or num < 1:
        raise ValueError(f"a ball query needs a radius above 0 and at least 1 point, got {radius} and {num}")


def _paired_starts(
    query: Float[Tensor, "q 3"], query_offset: Int[Tensor, " b"], coord: Float[Tensor, "p 3"], offset: Int[Tensor, " b"]
) -> tuple[Int[Tensor, " s"], Int[Tensor, " s"]]:
    if len(query_offset) != len(offset):
        raise ValueError(f"queries of {len(query_offset)} clouds cannot look into {len(offset)} clouds")
    return starts_of(query_offset, len(query), "query"), starts_of(offset, len(coord), "coord")


def _as_rows(
    index: Int[Tensor, "q k"], query_starts: Int[Tensor, " s"], starts: Int[Tensor, " s"]
) -> Int[Tensor, "q k"]:
    """Count from the start of all clouds instead of the start of the own one."""
    return index + starts[:-1].repeat_interleave(query_starts.diff()).to(index.device)[:, None]


def _knn_numba(
    query: Float[Tensor, "q 3"],
    query_starts: Int[Tensor, " s"],
    coord: Float[Tensor, "p 3"],
    starts: Int[Tensor, " s"],
    k: int,
) -> Int[Tensor, "q k"]:
    index = np.empty((len(query), k), dtype=np.int64)
    given = query.numpy(), coord.numpy(), starts.numpy()

    def search(first: int, end: int) -> None:
        own_starts = query_starts.clamp(first, end).numpy()
        knn_clouds(given[0], own_starts, *given[1:], index)

    run_parts(search, len(query), cost=min(_SEARCH, len(coord) // len(starts)))
    return torch.from_numpy(index)


def _ball_numba(  # noqa: PLR0917
    query: Float[Tensor, "q 3"],
    query_starts: Int[Tensor, " s"],
    coord: Float[Tensor, "p 3"],
    starts: Int[Tensor, " s"],
    radius: float,
    num: int,
) -> Int[Tensor, "q num"]:
    index = np.empty((len(query), num), dtype=np.int64)
    given = query.numpy(), coord.numpy(), starts.numpy()

    def search(first: int, end: int) -> None:
        own_starts = query_starts.clamp(first, end).numpy()
        ball_clouds(given[0], own_starts, *given[1:], np.float32(radius), index)

    run_parts(search, len(query), cost=min(_SEARCH, len(coord) // len(starts)))
    return torch.from_numpy(index)


def _knn_triton(
    query: Float[Tensor, "q 3"],
    query_starts: Int[Tensor, " s"],
    coord: Float[Tensor, "p 3"],
    starts: Int[Tensor, " s"],
    k: int,
) -> Int[Tensor, "q k"]:
    from pointloom.kernels.gpu import knn_gpu

    return knn_gpu(query, query_starts, coord, starts, k)


def _ball_triton(  # noqa: PLR0917
    query: Float[Tensor, "q 3"],
    query_starts: Int[Tensor, " s"],
    coord: Float[Tensor, "p 3"],
    starts: Int[Tensor, " s"],
    radius: float,
    num: int,
) -> Int[Tensor, "q num"]:
    from pointloom.kernels.gpu import ball_gpu

    return ball_gpu(query, query_starts, coord, starts, radius=radius, num=num)


_KNN = {"numba": _knn_numba, "triton": _knn_triton}
_BALL = {"numba": _ball_numba, "triton": _ball_triton}


def _in_blocks(
    search: Callable[[Tensor], Tensor], query: Float[Tensor, "b m 3"], num_points: int
) -> Int[Tensor, "b m _"]:
    """Search for a few queries at a time, so that the distances to all points fit into memory."""
    block = max(1, _MAX_PAIRS // max(1, len(query) * num_points))
    return torch.cat([search(part) for part in query.split(block, dim=1)], dim=1)


def _squared_distances(query: Float[Tensor, "b m 3"], coord: Float[Tensor, "b n 3"]) -> Float[Tensor, "b m n"]:
    dx, dy, dz = (query[:, :, None, a] - coord[:, None, :, a] for a in range(3))
    return dx * dx + dy * dy + dz * dz


def _knn_torch(query: Float[Tensor, "b m 3"], coord: Float[Tensor, "b n 3"], k: int) -> Int[Tensor, "b m k"]:
    """Sort by distance and index at once: the bits of a float that is not negative are in order as an integer."""
    bits = _squared_distances(query, coord).view(torch.int32).long()
    key = (bits << _INDEX_BITS) | torch.arange(coord.shape[1], device=coord.device)
    return key.topk(k, dim=-1, largest=False, sorted=True).values & (2**_INDEX_BITS - 1)


def _ball_torch(
    query: Float[Tensor, "b m 3"], coord: Float[Tensor, "b n 3"], radius: float, num: int
) -> Int[Tensor, "b m num"]:
    N = coord.shape[1]
    limit = float(np.square(np.float32(radius)))
    position = torch.arange(N, device=coord.device)
    hits = torch.where(_squared_distances(query, coord) < limit, position, N)
    index = hits.topk(min(num, N), dim=-1, largest=False, sorted=True).values
    index = torch.nn.functional.pad(index, (0, num - index.shape[-1]), value=N)
    first = index[..., :1]
    return torch.where(index == N, torch.where(first == N, 0, first), index)


def _cloud_by_cloud(
    search: Callable[[Tensor, Tensor], Tensor],
    query: Float[Tensor, "q 3"],
    query_starts: Int[Tensor, " s"],
    coord: Float[Tensor, "p 3"],
    starts: Int[Tensor, " s"],
) -> Int[Tensor, "q _"]:
    queries, clouds = query.split(query_starts.diff().tolist()), coord.split(starts.diff().tolist())
    return torch.cat([search(q[None], c[None])[0] for q, c in zip(queries, clouds, strict=True)])

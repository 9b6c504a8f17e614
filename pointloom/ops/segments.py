"""Ragged batches: clouds of different sizes as one long array, with the place where each of them ends."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointloom.kernels.tree import LARGEST


def even_starts(num_clouds: int, num_points: int, device: torch.device) -> Int[Tensor, " s"]:
    """Return where the clouds of a dense batch begin in the array of all their points, and the end of the last."""
    return torch.arange(num_clouds + 1, device=device) * num_points


def starts_of(offset: Int[Tensor, " b"], num_rows: int, what: str) -> Int[Tensor, " s"]:
    """Return where ragged clouds begin, and the end of the last, on the CPU.

    Raises:
        ValueError: The offsets do not rise, a cloud is empty, or the last one is not the number of rows.
    """
    ends = offset.detach().cpu().long()
    starts = torch.cat([ends.new_zeros(1), ends])
    if len(ends) == 0 or int(ends[-1]) != num_rows or bool((starts.diff() < 1).any()):
        raise ValueError(
            f"offsets of {what} must rise to its {num_rows} rows and leave no cloud empty, got {ends.tolist()}"
        )
    return starts


def require_finite(coord: Float[Tensor, "*rows 3"]) -> None:
    """Refuse coordinates on a CPU whose squared distances are no numbers in single precision.

    On a GPU the check would make the host wait, and garbage stays garbage.

    Raises:
        ValueError: A coordinate is not finite or above ``LARGEST``.
    """
    if coord.device.type == "cpu" and not bool((coord.abs() <= LARGEST).all()):
        raise ValueError(f"coordinates must be finite and at most {LARGEST:g}, got NaN, infinity or more")


def require_clouds(*clouds: Tensor) -> None:
    """Refuse what is no batch of clouds, or batches of different numbers of clouds: kernels would read beyond them.

    Raises:
        ValueError: A shape is not (b, n, 3), or b differs.
    """
    shapes = [tuple(cloud.shape) for cloud in clouds]
    if any(len(shape) != 3 or shape[2] != 3 or shape[0] != shapes[0][0] for shape in shapes):
        raise ValueError(f"expected clouds of shape (b, n, 3), b the same, got {' and '.join(map(str, shapes))}")


def require_rows(index: Int[Tensor, "*n"], num_rows: int) -> None:
    """Refuse indices of rows that are not there: kernels would read and write beyond them.

    Raises:
        IndexError: An index is not in 0..num_rows - 1.
    """
    if index.numel() > 0:
        lowest, highest = (int(value) for value in index.aminmax())
        if lowest < 0 or highest >= num_rows:
            raise IndexError(f"indices of {num_rows} rows must be 0 to {num_rows - 1}, got {lowest} to {highest}")


def clouds_of(offset: Int[Tensor, " b"], num_rows: int) -> Int[Tensor, " p"]:
    """Return the number of the cloud of every row."""
    sizes = offset.diff(prepend=offset.new_zeros(1)).long()
    return torch.arange(len(offset), device=offset.device).repeat_interleave(sizes, output_size=num_rows)


def ranks_within(score: Float[Tensor, " p"], cloud: Int[Tensor, " p"]) -> Int[Tensor, " p"]:
    """Return the place of every row among those of its cloud, 0 for the largest score, ties in order of rows."""
    by_score = score.argsort(descending=True, stable=True)
    order = by_score[cloud[by_score].argsort(stable=True)]
    sizes = cloud.bincount()
    position = torch.arange(len(cloud), device=cloud.device)
    position = position - (sizes.cumsum(0) - sizes).repeat_interleave(sizes, output_size=len(cloud))
    return torch.empty_like(order).scatter_(0, order, position)


def to_corner(coord: Float[Tensor, "p 3"], offset: Int[Tensor, " b"]) -> Float[Tensor, "p 3"]:
    """Move every cloud so that the lowest corner of its bounding box is the origin."""
    cloud = clouds_of(offset, len(coord)).unsqueeze(1).expand(-1, 3)
    lowest = coord.new_full((len(offset), 3), torch.inf).scatter_reduce(0, cloud, coord, "amin")
    return coord - lowest.gather(0, cloud)

"""Ragged batches: clouds of different sizes as one long array, with the place where each of them ends."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def even_starts(num_clouds: int, num_points: int) -> Int[Tensor, " s"]:
    """Return where the clouds of a dense batch begin in the array of all their points, and the end of the last."""
    return torch.arange(num_clouds + 1) * num_points


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


def require_finite(*coords: Float[Tensor, "*rows 3"]) -> None:
    """Refuse NaN and infinity on a CPU; on a GPU the check would make the host wait, and garbage stays garbage.

    Raises:
        ValueError: A coordinate is not finite.
    """
    if not all(bool(torch.isfinite(coord).all()) for coord in coords if coord.device.type == "cpu"):
        raise ValueError("coordinates must be finite, got NaN or infinity")

"""Clouds have a point for every patch: looked at before any training starts."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pointloom.structures import Encoder


def check_enough_points(encoder: "Encoder", num_points: int, *, where: str, num_groups: int = 0) -> None:
    """Check that clouds can be cut into the patches of an encoder; one without patches takes any.

    Args:
        encoder: What sees the clouds.
        num_points: Points per cloud.
        where: Stage, for the message.
        num_groups: Patches that a method cuts besides those of the encoder.

    Raises:
        ParamsError: There are fewer points than patches, or than a patch has members.
    """
    from pointloom.errors import ParamsError
    from pointloom.models import MaskedEncoder

    if not isinstance(encoder, MaskedEncoder):
        return
    (patches, *_), (members, *_), _ = encoder.cut
    patches = max(patches, num_groups)
    if num_points < max(patches, members):
        raise ParamsError(
            f"{where}: clouds of {num_points} points cannot be cut into {patches} patches of {members} points; set "
            f"sampling.num_points to {max(patches, members)} or more, or take fewer patches"
        )

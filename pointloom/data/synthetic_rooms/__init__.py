"""Furnished rooms with exact labels, boxes and sentences, so that scenes need no download.

Room ``index`` of ``seed`` does not depend on any other room. Metres, right-handed, +Z up, the floor at z = 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pointloom.data.scenes import Scene
from pointloom.data.synthetic_rooms.recipes import KINDS
from pointloom.data.synthetic_rooms.room import BOX_CLASSES, ROOM_CLASSES, Room, RoomSettings, generate_room

__all__ = ["BOX_CLASSES", "KINDS", "ROOM_CLASSES", "Room", "RoomSettings", "generate_room", "synthetic_scenes"]


def synthetic_scenes(number: int, *, seed: int, num_points: int = 32768, **options: Any) -> Iterator[Scene]:
    """Yield the first ``number`` rooms of the endless collection ``seed``, one in memory at a time.

    Args:
        number: How many.
        seed: Which collection; different seeds share no room.
        num_points: Points of each room.
        **options: Further fields of ``RoomSettings``.

    Raises:
        ValueError: A setting is out of range.
    """
    settings = RoomSettings(num_points=num_points, **options)
    return (generate_room(index, seed=seed, settings=settings).scene for index in range(number))

"""A stage over several processes: a shard does a part of the objects and keeps it; the stage itself does the rest.

A shard is the stage without its last part: it works into a journal of its own in the shared folder of resume state and
writes no output. The same command without ``--shard`` then finds all journals, does what is missing, and writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pointloom.errors import ParamsError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """One of several parts of a stage's work.

    Attributes:
        index: Which part, counted from 0.
        count: How many parts there are.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ParamsError: There is no such part.
        """
        if not 0 <= self.index < self.count:
            raise ParamsError(
                f"--shard {self.index} --num-shards {self.count}: there is no such part; parts are counted from 0, the "
                "last of four is --shard 3 --num-shards 4"
            )

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"

    def part(self, items: Sequence[Item]) -> list[Item]:
        """Return every ``count``-th item from the ``index``-th."""
        return list(items[self.index :: self.count])


def part_of(items: Sequence[Item], shard: Shard | None) -> list[Item]:
    """Return a shard's items, all of them for the whole stage."""
    return shard.part(items) if shard else list(items)


def label(shard: Shard | None) -> str:
    """Return a shard's name, empty for the whole stage."""
    return str(shard) if shard else ""


def journal_files(folder: Path, name: str, shard: Shard | None) -> tuple[Path, list[Path]]:
    """Return the journal to write, and those whose finished pieces are not done again.

    Other shards of the same split have other objects, so a shard does not read theirs.
    """
    own = folder / (f"{name}-{shard}.journal" if shard else f"{name}.journal")
    beside = {folder / f"{name}.journal", *folder.glob(f"{name}-*-of-*.journal")} - {own}
    if shard:
        beside = {path for path in beside if not path.stem.endswith(f"-of-{shard.count}")}
    return own, sorted(path for path in beside if path.is_file())

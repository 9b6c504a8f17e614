"""Occupied voxels of packed scenes: which there are, in what order, and what they join to one level up."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointloom.ops.curves import BITS, CODE_BITS, CURVES, z_order
from pointloom.ops.segments import clouds_of

LIMIT = 1 << BITS


@dataclass(frozen=True)
class Voxels:
    """Occupied voxels at one resolution, in z-order scene by scene, without repeats.

    Attributes:
        key: Scene and z-order code in one number, rising.
        coord: Place in the scene's grid, 0 to 65,535 along every axis.
        offset: Where each scene ends.
        origin: Corner of each scene's grid in metres.
        size: Edge of a voxel in metres.
    """

    key: Int[Tensor, " v"]
    coord: Int[Tensor, "v 3"]
    offset: Int[Tensor, " s"]
    origin: Float[Tensor, "s 3"]
    size: float

    @property
    def scene(self) -> Int[Tensor, " v"]:
        """Number of each voxel's scene."""
        return self.key >> CODE_BITS

    @property
    def centers(self) -> Float[Tensor, "v 3"]:
        """Middle of each voxel, metres in the scene's frame."""
        return self.origin[self.scene] + (self.coord + 0.5) * self.size

    def find(self, coord: Int[Tensor, "*n 3"], scene: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        """Return the rows of the voxels at some places, -1 where there is none."""
        inside = ((coord >= 0) & (coord < LIMIT)).all(-1)
        flat = coord.clamp(0, LIMIT - 1).reshape(-1, 3)
        return self.find_key(voxel_key(flat, scene.reshape(-1)).view(scene.shape), inside)

    def find_key(self, key: Int[Tensor, "*n"], possible: Bool[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        """Return the rows of some keys, -1 where there is none or it is not ``possible``."""
        row = torch.searchsorted(self.key, key).clamp_(max=len(self.key) - 1)
        return torch.where((self.key[row] == key) & possible, row, -1)

    def subset(self, kept: Bool[Tensor, " v"]) -> "Voxels":
        """Keep some voxels, at least one of every scene, in the same grid.

        Raises:
            ValueError: A scene would be empty.
        """
        counts = torch.bincount(self.scene[kept], minlength=len(self.offset))
        if not bool((counts > 0).all()):
            raise ValueError("every scene must keep a voxel")
        return Voxels(self.key[kept], self.coord[kept], counts.cumsum(0), self.origin, self.size)

    def parents(self) -> "tuple[Voxels, Int[Tensor, ' v']]":
        """Join voxels two by two along every axis: the voxels of twice the size, and the row of each one's parent.

        Note:
            A parent is the place halved, rounded down, whatever the size of the grid; a strided convolution of spconv
            drops the last plane of grids of odd size instead.
        """
        scene = self.scene
        code = (self.key & ((1 << CODE_BITS) - 1)) >> 3
        key, parent = torch.unique_consecutive((scene << CODE_BITS) | code, return_inverse=True)
        first = torch.ones_like(parent, dtype=torch.bool)
        first[1:] = parent[1:] != parent[:-1]
        offset = torch.bincount(scene[first], minlength=len(self.offset)).cumsum(0)
        return Voxels(key, self.coord[first] >> 1, offset, self.origin, 2 * self.size), parent

    def order(self, curve: str) -> Int[Tensor, " v"]:
        """Return the rows in the order of a curve in ``CURVES``, scene after scene."""
        code: Callable[[Tensor], Tensor] = CURVES[curve]
        return ((self.scene << CODE_BITS) | code(self.coord)).argsort()


def voxel_key(coord: Int[Tensor, "n 3"], scene: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Return scene and z-order code in one number."""
    return (scene.long() << CODE_BITS) | z_order(coord)


def voxelize(
    coord: Float[Tensor, "p 3"], offset: Int[Tensor, " s"], size: float
) -> tuple[Voxels, Int[Tensor, " v"], Int[Tensor, " p"]]:
    """Return the voxels that points are in, the first point of each, and the voxel of every point.

    The grid is aligned to multiples of ``size`` and begins at each scene's least point.

    Raises:
        ValueError: A scene is empty, or spans more than 65,536 voxels.
    """
    _check_offset(offset, len(coord))
    scene = clouds_of(offset, len(coord))
    cell = torch.floor(coord / size).long()
    low = cell.new_full((len(offset), 3), torch.iinfo(torch.int64).max)
    low.scatter_reduce_(0, scene[:, None].expand(-1, 3), cell, "amin")
    origin = low * size
    place = cell - low[scene]
    _check_places(place)
    key = voxel_key(place, scene)
    order = key.argsort(stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = key[order[1:]] != key[order[:-1]]
    chosen = order[first]
    inverse = torch.empty_like(order)
    inverse[order] = first.cumsum(0) - 1
    ends = torch.bincount(scene[chosen], minlength=len(offset)).cumsum(0)
    return Voxels(key[chosen], place[chosen], ends, origin.to(coord.dtype), size), chosen, inverse


def voxels_at(
    place: Int[Tensor, "v 3"],
    offset: Int[Tensor, " s"],
    *,
    size: float = 1.0,
    origin: Float[Tensor, "s 3"] | None = None,
) -> tuple[Voxels, Int[Tensor, " v"]]:
    """Return voxels at given places of a grid, and their order: row i of the voxels is row ``order[i]`` of ``place``.

    Raises:
        ValueError: A place occurs twice in a scene, is outside of 0..65,535, or a scene is empty.
    """
    _check_offset(offset, len(place))
    _check_places(place)
    scene = clouds_of(offset, len(place))
    key, order = voxel_key(place, scene).sort()
    if bool((key[1:] == key[:-1]).any()):
        raise ValueError("a voxel occurs twice; convolutions need every place at most once per scene")
    if origin is None:
        origin = torch.zeros(len(offset), 3, device=place.device)
    return Voxels(key, place[order].long(), offset.long(), origin, size), order


def _check_offset(offset: Int[Tensor, " s"], num_rows: int) -> None:
    rising = bool((offset.diff(prepend=offset.new_zeros(1)) > 0).all())
    if len(offset) == 0 or not rising or int(offset[-1]) != num_rows:
        raise ValueError(f"offsets must rise to the {num_rows} rows and leave no scene empty, got {offset.tolist()}")


def _check_places(place: Int[Tensor, "v 3"]) -> None:
    if int(place.min()) < 0 or int(place.max()) >= LIMIT:
        raise ValueError(
            f"places of voxels must be in 0..{LIMIT - 1}, got {int(place.min())}..{int(place.max())}; "
            "are the coordinates in metres?"
        )

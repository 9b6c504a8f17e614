"""Codes along curves: bits in turn, and a path of unit steps."""

import numpy as np
import torch

from pointloom.ops.curves import CURVES, hilbert, z_order


def cube(edge: int) -> torch.Tensor:
    return torch.cartesian_prod(*(torch.arange(edge),) * 3)


def interleaved(place: list[int]) -> int:
    bits = ["".join(column) for column in zip(*(f"{axis:016b}" for axis in place), strict=True)]
    return int("".join(bits), 2)


def test_z_order_takes_bits_of_x_y_and_z_in_turn() -> None:
    rng = np.random.default_rng(0)
    places = np.concatenate([rng.integers(0, 2**16, (50, 3)), [[0, 0, 0], [1, 0, 0], [2**16 - 1] * 3]])
    assert z_order(torch.from_numpy(places)).tolist() == [interleaved(place) for place in places.tolist()]


def test_hilbert_visits_every_voxel_of_a_cube_by_unit_steps() -> None:
    places = cube(8)
    code = hilbert(places)
    order = code.argsort()
    assert code[order].tolist() == list(range(512))
    assert (places[order].diff(dim=0).abs().sum(1) == 1).all()


def test_hilbert_steps_are_unit_steps_far_from_the_origin_too() -> None:
    places = cube(4) + torch.tensor([65532, 32768, 12])  # an aligned cube: a piece of the curve
    code, order = hilbert(places).sort()
    assert (code.diff() == 1).all()
    assert (places[order].diff(dim=0).abs().sum(1) == 1).all()


def test_the_other_two_curves_swap_x_and_y() -> None:
    places = cube(4)
    assert torch.equal(CURVES["z_yxz"](places), z_order(places[:, [1, 0, 2]]))
    assert torch.equal(CURVES["hilbert_yxz"](places), hilbert(places[:, [1, 0, 2]]))

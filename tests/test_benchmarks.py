"""The benchmarks' own arithmetic."""

from benchmarks.run_all import compare_tables
from benchmarks.sparse import corner
from benchmarks.step import Run, compare


def test_two_measurements_are_compared_by_their_ratios() -> None:
    machine = {"processor": "P", "torch": "2", "load": 0.1}
    first = {**machine, "rows": [{"name": "a", "ratio": 4.0}, {"name": "gone", "ratio": 1.0}]}
    second = {**machine, "rows": [{"name": "a", "ratio": 5.0}]}
    table = compare_tables("operators", first, second)
    assert "| a | 4.00 | 5.00 | **1.25** |" in table
    assert "gone" not in table


def test_a_step_is_compared_with_the_reference_path_of_its_model() -> None:
    parts = {"forward_s": 1.0, "backward_s": 1.0, "update_s": 0.1, "first_loss": 0.5}
    plain = Run(model="Point-MAE", variant="reference path", steps_s=[4.0, 6.0], peak_gib=2.0, **parts)
    fast = Run(model="Point-MAE", variant="float32", steps_s=[2.0, 2.0], peak_gib=1.0, **parts)
    row = compare([plain, fast])[1]
    assert (row["ratio"], row["lowest"], row["highest"], row["memory"]) == (2.0, 2.0, 3.0, 0.5)


def test_the_corner_of_a_room_has_the_voxels_it_says() -> None:
    """A floor and two walls share three edges, and those one corner."""
    assert len(corner(1.0).coord) == 200 * 200 + 2 * 200 * 120 - 200 - 200 - 120 + 1 == 87_481
    assert len(corner(0.25).coord) == 100 * 100 + 2 * 100 * 60 - 100 - 100 - 60 + 1

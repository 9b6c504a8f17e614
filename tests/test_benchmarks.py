"""The benchmarks' own arithmetic."""

import json
from pathlib import Path

import pytest

from benchmarks.run_all import compare_tables
from benchmarks.scaling import batch_that_fits, curve, exponent
from benchmarks.sparse import corner
from benchmarks.stages import as_markdown, read_costs, rows
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


def test_exponent_is_the_slope_of_the_logarithms() -> None:
    assert exponent([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2.0)
    assert exponent([1, 2, 4], [5, 5, 5]) == pytest.approx(0.0)


def test_batch_that_fits_is_read_off_the_line_through_the_two_largest() -> None:
    memory = curve("memory", [4, 8, 16], [1.0, 1.5, 2.5], "GiB")
    assert batch_that_fits(memory, 16.0) == 124  # 1/8 GiB per cloud


def test_stages_are_costs_with_shares_and_the_longest_is_the_bottleneck(tmp_path: Path) -> None:
    for name, wall, cpu, waiting in (
        ("prepare", 10.0, 20.0, None),
        ("pretrain/mae", 30.0, 27.0, 4.0),
        ("probe/mae", 2.0, 3.0, None),
    ):
        file = tmp_path / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        metrics = {} if waiting is None else {"percent_waiting_for_data": waiting}
        file.write_text(json.dumps({"metrics": metrics, "run": {"wall_s": wall, "cpu_s": cpu, "peak_memory_mb": 1.0}}))
    found = rows(read_costs(tmp_path))
    assert [row.name for row in found] == ["prepare", "pretrain mae", "probe mae"]
    assert [row.ratio for row in found] == [0.4, 0.54, 0.06]
    assert "| pretrain mae | 30.0 | 27.0 | 0.9 | 1 | 4.0 % | **54%** |" in as_markdown(found)
    assert "Bottleneck: pretrain mae takes 71% of the time and keeps 0.9 cores busy" in as_markdown(found)

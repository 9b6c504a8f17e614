"""The benchmarks' own arithmetic."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu_step
from benchmarks.run_all import compare_tables
from benchmarks.run_all import main as run_all
from benchmarks.scaling import batch_that_fits, curve, exponent
from benchmarks.sparse import corner
from benchmarks.stages import as_markdown, read_costs, rows
from benchmarks.step import Run, compare

MACHINE = {"processor": "P", "cores": 2, "torch": "2", "load": 0.1}


def test_two_measurements_are_compared_by_their_ratios() -> None:
    spread = {"lowest": 3.5, "highest": 4.5}
    first = {**MACHINE, "rows": [{"name": "a", "ratio": 4.0, **spread}, {"name": "gone", "ratio": 1.0}]}
    second = {**MACHINE, "rows": [{"name": "a", "ratio": 5.0}]}
    table = compare_tables("operators", first, second)
    assert "| a | 4.00 (3.50 to 4.50) | 5.00 | **1.25** |" in table
    assert "gone" not in table
    assert "Not the same" not in table
    assert "Not the same measurement:** A has {}, B has {'batch_size': 8}" in compare_tables(
        "step", first, {**second, "batch_size": 8}
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{broken", "JSONDecodeError"),
        ("[]", "AttributeError"),
        ('{"rows": []}', "cores, load, processor, torch must be there"),
        (json.dumps(MACHINE | {"rows": [{"name": "a"}]}), "KeyError: 'ratio'"),
        (json.dumps(MACHINE | {"rows": [{"name": "a", "ratio": None}]}), "rows with a ratio"),
    ],
)
def test_what_no_benchmark_has_written_is_not_compared(content: str, message: str, tmp_path: Path) -> None:
    good = json.dumps(MACHINE | {"rows": []})
    for name, text in (("a", good), ("b", content)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "step.json").write_text(text)
    found = CliRunner().invoke(run_all, ["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert found.exit_code == 1
    assert message in found.output
    assert f"{tmp_path / 'b' / 'step.json'} is not what a benchmark writes" in found.output


def test_folders_without_a_result_in_common_are_an_error(tmp_path: Path) -> None:
    found = CliRunner().invoke(run_all, ["compare", str(tmp_path), str(tmp_path)])
    assert found.exit_code == 1
    assert "share no result; `make bench OUTPUT=folder` writes operators.json" in found.output


def test_a_benchmark_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.run_all.BENCHMARKS", ("none_of_this_name",))
    found = CliRunner().invoke(run_all, ["run", str(tmp_path)])
    assert found.exit_code == 1
    assert "benchmarks.none_of_this_name failed (exit code 1)" in found.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which would be measured")
def test_the_benchmark_of_gpus_says_that_there_is_none_and_writes_what_it_measures() -> None:
    found = CliRunner().invoke(gpu_step.main, [])
    assert (found.exit_code, found.output) == (1, "Error: no CUDA device\n")
    row = gpu_step.Row("m", 12_345.6, 1.0, 2.0, 0.5, 700, 700, 0, 2.0, 395.0, 0.5, 0.8, 9.0, 10.0)
    assert "| m | 12,346 | **10.00** | 1.0, 2.0, 0.50 | 700 (700) | 0 | 395.0 | 50% | 0.800000 | 9.00 |" in (
        gpu_step.as_markdown([row])
    )


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

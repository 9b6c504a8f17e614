"""The table of other tasks: means over seeds, in the page and in the JSON; rooms are no foreign data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointloom.report.inputs import load_inputs
from pointloom.report.page import template_environment
from pointloom.report.tasks import task_rows
from tests.report.fixtures import write_workspace

PARTS = [
    {"seed": 0, "miou_instance": 80.0, "miou_class": 70.0, "oa": 90.0},
    {"seed": 1, "miou_instance": 84.0, "miou_class": 71.0, "oa": 92.0},
]


def write_result(results: Path, name: str, *, task: str, runs: list[dict[str, Any]], **protocol: Any) -> None:
    folder = results / "finetune" / name
    folder.mkdir(parents=True)
    card = {
        "task": task, "name": name, "protocol": {"selection": "last", **protocol}, "runs": runs,
        "encoder": {"builder": "point_mae_tiny", "method": "mae", "labels": "none"}, "data": {"digest": "elsewhere"},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(card))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    paths = write_workspace(tmp_path_factory.mktemp("tasks"), num_points=128)
    write_result(paths["results"], "parts", task="part_segmentation", runs=PARTS, num_points=2048, draws=1)
    rooms = [{"seed": 0, "miou": 50.0, "macc": 60.0, "oa": 70.0}]
    write_result(paths["results"], "rooms", task="semantic_segmentation", runs=rooms, test_areas=[5])
    return paths


def test_rows_hold_mean_and_deviation_of_every_metric(paths: dict[str, Path]) -> None:
    rows = task_rows(load_inputs(**paths))
    assert [(row["name"], row["metric"]) for row in rows] == [
        ("parts", "instance mIoU"), ("parts", "class mIoU"), ("parts", "overall accuracy"),
        ("rooms", "mIoU"), ("rooms", "mean class accuracy"), ("rooms", "overall accuracy"),
    ]  # fmt: skip
    assert rows[0]["value"]["mean"] == pytest.approx(82.0)
    assert rows[0]["value"]["std"] == pytest.approx(np.std([80, 84], ddof=1))
    assert rows[0]["setting"] == "2048 points, mean of 1 draws"
    assert rows[3]["setting"] == "random blocks of area 5"


def test_classification_is_not_repeated(paths: dict[str, Path]) -> None:
    inputs = load_inputs(**paths)
    assert len(inputs.finetune) > 2
    assert {row["name"] for row in task_rows(inputs)} == {"parts", "rooms"}


def test_results_on_rooms_are_no_foreign_data(paths: dict[str, Path]) -> None:
    problems = " ".join(load_inputs(**paths).problems)
    assert "results/finetune/parts was made from data elsewhere" in problems
    assert "rooms" not in problems


@pytest.mark.parametrize("suffix", ["md", "html"])
def test_tables_show_every_row(paths: dict[str, Path], suffix: str) -> None:
    rows = task_rows(load_inputs(**paths))
    environment = template_environment(autoescape=suffix == "html")
    environment.filters["data_uri"] = str  # a macro beside those used here needs it
    text = environment.get_template(f"tasks.{suffix}.j2").render(content={"tasks": rows})
    assert text.count("instance mIoU") == 1
    assert text.count("82.0 ± 2.8") == 1
    assert text.count("point_mae_tiny, mae") == 6

"""Rooms from the first command to the report: every stage once, nothing twice, both systems in the tables."""

import json
from pathlib import Path

import pytest

from tests.e2e.processes import pointloom
from tests.e2e.stories import Story, executed, run_twice

pytestmark = pytest.mark.slow

STAGES_OF_SMOKE = {
    "prepare",
    *(f"pretrain@{name}" for name in ("scratch", "scratch_hunet", "mm3dscene", "msm")),
    *(f"finetune@{name}" for name in ("scratch", "mm3dscene")),
    *(f"probe@{name}" for name in ("random", "random_hunet", "mm3dscene", "msm")),
    "report",
}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return run_twice(tmp_path_factory.mktemp("scenes"), "scenes")


def test_every_stage_runs_once(story: Story) -> None:
    assert story.first.returncode == 0, story.first.stdout + story.first.stderr
    assert sorted(executed(story.first)) == sorted(STAGES_OF_SMOKE)


def test_second_run_does_nothing(story: Story) -> None:
    assert story.again.returncode == 0, story.again.stderr
    assert executed(story.again) == []


def test_report_compares_every_architecture_with_itself_without_pretraining(story: Story) -> None:
    content = story.content()
    assert content["problems"] == []
    pairs = {(row["name"], row["baseline"]) for row in content["rows"] if row["trained"]}
    assert pairs == {("mm3dscene", "scratch"), ("mm3dscene", "random"), ("msm", "random_hunet")}
    found = {row["protocol"] for row in content["rows"]}
    assert found == {"scene_segmentation", "linear", "nearest", "instances", "grounding"}
    page = (story.workspace / "report" / "report.html").read_text()
    assert all(title in page for title in ("Frozen features, grounding", "mm3dscene"))


@pytest.mark.parametrize("method", ["mm3dscene", "msm"])
def test_encoders_saw_no_labels(story: Story, method: str) -> None:
    card = json.loads((story.workspace / "models" / method / "encoder.json").read_text())
    assert (card["method"], card["labels"]) == (method, "none")


def test_a_scan_gets_features_from_the_pretrained_encoder(story: Story, shared: Path) -> None:
    scan = shared / "data" / "scenes" / "pcl_tutorials" / "room_scan1.pcd"
    folder = story.workspace / "features"
    done = pointloom(
        "features", str(scan), "--encoder", str(story.workspace / "models" / "msm"), "--output", str(folder),
        cwd=story.workspace, seconds=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (folder / "view.html").stat().st_size > 1000

"""Detectors from the first command to the report: every stage once, nothing twice, pre-training against none."""

import pytest

from tests.e2e.stories import Story, executed, run_twice

pytestmark = pytest.mark.slow

STAGES_OF_SMOKE = {
    "prepare",
    *(f"pretrain@{name}" for name in ("scratch_pointnet2", "scratch_detr", "mm3dscene")),
    *(f"finetune@{name}" for name in ("votenet", "mm3dscene", "detr")),
    *(f"probe@{name}" for name in ("random", "mm3dscene")),
    "report",
}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return run_twice(tmp_path_factory.mktemp("detection"), "detection")


def test_every_stage_runs_once(story: Story) -> None:
    assert story.first.returncode == 0, story.first.stdout + story.first.stderr
    assert sorted(executed(story.first)) == sorted(STAGES_OF_SMOKE)


def test_second_run_does_nothing(story: Story) -> None:
    assert story.again.returncode == 0, story.again.stderr
    assert executed(story.again) == []


def test_report_compares_the_detector_with_itself_without_pretraining(story: Story) -> None:
    content = story.content()
    assert content["problems"] == []
    pairs = {(row["name"], row["baseline"]) for row in content["rows"] if row["trained"]}
    assert pairs == {("mm3dscene", "votenet"), ("mm3dscene", "random")}
    assert {row["detector"] for row in content["rows"] if row["protocol"] == "detection"} == {"votenet", "3detr"}
    assert "AP25" in (story.workspace / "report" / "report.html").read_text()

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from pointloom.errors import DataError
from pointloom.stages.report import ReportParams, report
from tests.report.fixtures import write_workspace

VALUES = {
    "title": "Shapes",
    "baseline": "scratch",
    "probe_baseline": "scratch",
    "detail": ["scratch", "mae"],
    "resamples": 200.0,
    "confidence": 0.95,
    "seed": 0,
    "tsne_objects": 30,
    "queries": 2,
    "viewer_objects": 2,
    "thumbnail_size": 32,
}


@pytest.fixture(autouse=True)
def _outside_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_stage_writes_the_folder_and_its_metrics_and_replaces_an_older_report(tmp_path: Path) -> None:
    paths = write_workspace(tmp_path, num_points=64)
    folder, metrics = tmp_path / "report", tmp_path / "reports" / "report.json"
    folder.mkdir()
    (folder / "old.txt").write_text("old", encoding="utf-8")
    report(ReportParams(**VALUES), **paths, report=folder, metrics=metrics)
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json", "report.md", "thumbnails"]
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    numbers = json.loads(metrics.read_text(encoding="utf-8"))["metrics"]
    row = next(row for row in content["finetune"] if row["name"] == "mae")
    assert numbers["finetune/mae/oa"] == row["oa"]["mean"]
    assert numbers["finetune/mae/gain"] == row["difference"]["mean"]
    assert numbers["probe/mae/svm/gain_low"] <= numbers["probe/mae/svm/gain"]


def test_own_metrics_file_is_not_among_the_stages_of_the_next_report(tmp_path: Path) -> None:
    paths = write_workspace(tmp_path, num_points=64)
    for _ in range(2):
        report(
            ReportParams(**VALUES), **paths, report=tmp_path / "report", metrics=tmp_path / "reports" / "report.json"
        )
    content = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert [row["stage"] for row in content["stages"]] == ["prepare", "pretrain", "finetune", "finetune", "probe"]


def test_missing_store_says_what_to_run(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    with pytest.raises(DataError, match="run `pointloom prepare`"):
        report(
            ReportParams(**VALUES),
            dataset=nothing,
            data=nothing,
            models=nothing,
            results=nothing,
            runs=nothing,
            report=tmp_path / "report",
            metrics=tmp_path / "report.json",
        )
    assert not (tmp_path / "report").exists()


def test_unknown_and_out_of_range_parameters_are_refused() -> None:
    with pytest.raises(ValidationError, match="resampels"):
        ReportParams(**VALUES, resampels=3)
    with pytest.raises(ValidationError, match="confidence"):
        ReportParams(**(VALUES | {"confidence": 95}))

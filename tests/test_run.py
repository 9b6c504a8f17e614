"""Checks before a run, its lock, and what it remembers."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from pointloom.errors import WorkspaceError
from pointloom.run import check_disk, only_run, stage_records
from pointloom.workspace import Workspace


def test_second_run_at_the_same_time_is_refused_and_names_the_first(tmp_path: Path) -> None:
    message = r"another run is going on .*process \d+"
    with only_run(tmp_path), pytest.raises(WorkspaceError, match=message), only_run(tmp_path):
        pass
    with only_run(tmp_path):
        pass


def test_too_small_a_disk_is_noticed_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    workspace = Workspace(tmp_path, {"source": "raw"})
    check_disk(workspace)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(WorkspaceError, match=r"may write 0\.9 GB, only 0\.0 GB are free"):
        check_disk(workspace)


def test_missing_raw_shapes_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="are not there"):
        check_disk(Workspace(tmp_path, {"source": "/nowhere/at all"}))


def test_damaged_metrics_files_are_left_out_of_the_record(tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "finetune"
    folder.mkdir(parents=True)
    (folder / "mae.json").write_text('{"metrics": {}, "run": {"stage": "finetune"}}')
    (folder / "torn.json").write_text('{"metr')
    assert list(stage_records(tmp_path)) == ["finetune/mae"]

"""Checks before a run, its lock, and what it remembers."""

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import yaml

from pointloom.errors import WorkspaceError
from pointloom.run import check_disk, check_source, disk_needed, only_run, stage_records
from pointloom.stages import runs
from pointloom.stages.params import StageParams
from pointloom.workspace import Workspace, template

SMOKE = yaml.safe_load(template("profiles/multimodal/smoke.yaml"))


def test_second_run_at_the_same_time_is_refused_and_names_the_first(tmp_path: Path) -> None:
    message = r"another run is going on .*process \d+"
    with only_run(tmp_path), pytest.raises(WorkspaceError, match=message), only_run(tmp_path):
        pass
    with only_run(tmp_path):
        pass


def test_too_small_a_disk_is_noticed_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    workspace = Workspace(tmp_path, {"source": "raw"})
    check_disk(workspace, SMOKE)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(WorkspaceError, match=r"may write \d\.\d GB, only 0\.0 GB are free"):
        check_disk(workspace, SMOKE)


def test_views_and_features_need_disk_of_their_own(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, {"source": "raw"})
    plain = yaml.safe_load(template("profiles/pretrain/demo.yaml"))
    views = {"layout": "openshape12", "size": 224}
    rendered = plain | {"render": {"views": views}, "embed": {}}
    embedded = plain | {"render": {"views": views}, "embed": {"offline": {"views": "views"}}}
    bigger = plain | {"render": {"views": views | {"size": 448}}, "embed": {}}
    sizes = [disk_needed(workspace, params) for params in (plain, rendered, embedded)]
    assert sizes == sorted(set(sizes))
    assert disk_needed(workspace, bigger) - sizes[0] == 4 * (sizes[1] - sizes[0])


def test_missing_raw_shapes_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="are not there"):
        check_disk(Workspace(tmp_path, {"source": "/nowhere/at all"}), SMOKE)


def test_shapes_that_dvc_cannot_look_at_are_named_before_it_fails(tmp_path: Path) -> None:
    (tmp_path / "a b.off").touch()
    (tmp_path / "linked.off").symlink_to("a b.off")
    check_source(tmp_path)
    (tmp_path / "gone.off").symlink_to("nowhere")
    with pytest.raises(WorkspaceError, match=r"gone.off \(a link to nothing\); remove or rename them, and run again"):
        check_source(tmp_path)
    (tmp_path / "gone.off").rename(os.fsdecode(bytes(tmp_path) + b"/box\xe9.off"))
    with pytest.raises(WorkspaceError, match=r"box.\.off \(its name is not UTF-8\)"):
        check_source(tmp_path)


class Told:
    """A tracker that remembers what it was told."""

    sender = None

    def __init__(self) -> None:
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.tags: dict[str, str] = {}

    def set_tags(self, tags: dict[str, str]) -> None:
        self.tags.update(tags)

    def log_metrics(self, values: dict[str, float], *, step: int) -> None:
        self.metrics.append((step, dict(values)))

    def finish(self, _: str) -> str:
        return "a1"


@pytest.mark.parametrize(
    ("waited", "line"),
    [({}, "1.5 cores busy"), ({"percent_waiting_for_data": 12.4}, "loader-bound 12 %, 1.5 cores busy")],
)
def test_tracking_says_what_a_stage_waited_for(
    waited: dict[str, float], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    monkeypatch.setattr(runs, "_open_tracker", lambda *_: told)
    monkeypatch.setattr(runs.CostMeter, "read", lambda _: {"wall_s": 2.0, "cpu_s": 3.0, "peak_memory_mb": 1.0})
    with runs.stage_run("pretrain", params=StageParams(), inputs={}, metrics=tmp_path / "m.json") as run:
        run.summary(waited)
    assert told.tags == {"bottleneck": line}


def test_a_number_that_a_curve_ends_with_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    monkeypatch.setattr(runs, "_open_tracker", lambda *_: told)
    with runs.stage_run("pretrain", params=StageParams(), inputs={}, metrics=tmp_path / "m.json") as run:
        for epoch, loss in ((1, 0.5), (2, 0.25)):
            run.log_metrics({"loss": loss}, step=epoch)
        run.summary({"loss": 0.25, "objects": 3})
    *curve, (step, final) = told.metrics
    assert curve == [(1, {"loss": 0.5}), (2, {"loss": 0.25})]
    assert (step, {name for name in final if not name.startswith("cost/")}) == (0, {"objects"})
    assert json.loads((tmp_path / "m.json").read_text())["metrics"] == {"loss": 0.25, "objects": 3.0}


@pytest.mark.parametrize(
    ("built_from", "revision", "dirty"), [("", None, None), ("f00", "f00", False), ("f00-edited", "f00", True)]
)
def test_images_say_what_they_were_built_from(
    monkeypatch: pytest.MonkeyPatch, built_from: str, revision: str | None, dirty: bool | None
) -> None:
    def no_git(*_: object) -> str:
        raise OSError

    monkeypatch.setattr(runs, "_git", no_git)
    monkeypatch.setenv("POINTLOOM_GIT_REVISION", built_from)
    assert runs.code_revision() == {"revision": revision, "dirty": dirty}


def test_damaged_metrics_files_are_left_out_of_the_record(tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "finetune"
    folder.mkdir(parents=True)
    (folder / "mae.json").write_text('{"metrics": {}, "run": {"stage": "finetune"}}')
    (folder / "torn.json").write_text('{"metr')
    assert list(stage_records(tmp_path)) == ["finetune/mae"]

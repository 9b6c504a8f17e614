"""Making and opening workspaces."""

import itertools
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pointloom.errors import WorkspaceError
from pointloom.stages.sections import check_params
from pointloom.train.spool import tracking_target
from pointloom.workspace import (
    PIPELINES,
    PROFILES,
    SCENE_PIPELINES,
    WorkspaceChoices,
    init_workspace,
    open_workspace,
)
from tests.datasets.scannet_tree import write_tree


@pytest.fixture
def meshes(tmp_path: Path) -> Path:
    folder = tmp_path / "my meshes"
    (folder / "chair").mkdir(parents=True)
    (folder / "chair" / "a.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    return folder


def test_new_workspace_is_complete_and_valid(tmp_path: Path) -> None:
    folder = tmp_path / "ws"
    assert init_workspace(WorkspaceChoices(folder, profile="smoke"))
    check_params(folder)
    workspace = open_workspace(folder)
    assert workspace.source == folder / "raw"
    log = subprocess.run(["git", "log", "--oneline"], cwd=folder, capture_output=True, text=True, check=True)
    assert len(log.stdout.splitlines()) == 1
    status = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True)
    assert status.stdout == ""


def test_moved_workspace_records_in_its_new_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    init_workspace(WorkspaceChoices(tmp_path / "ws", profile="smoke"))
    for name in ("ws", "moved"):
        target = tracking_target((tmp_path / "ws").rename(tmp_path / name))
        assert target is not None
        assert (target.uri, target.experiment) == (f"sqlite:///{tmp_path.resolve() / name / 'mlflow.db'}", "ws")


def test_queued_experiment_records_in_the_workspace_it_was_queued_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC runs it in a copy below .dvc/tmp/exps, and deletes the copy."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    init_workspace(WorkspaceChoices(tmp_path / "ws", profile="smoke"))
    copy = tmp_path / "ws" / ".dvc" / "tmp" / "exps" / "tmp1a2b"
    copy.mkdir(parents=True)
    (copy / "workspace.yaml").write_text((tmp_path / "ws" / "workspace.yaml").read_text())
    assert tracking_target(copy) == tracking_target(tmp_path / "ws")


def test_second_time_changes_nothing(tmp_path: Path) -> None:
    choices = WorkspaceChoices(tmp_path / "ws", profile="smoke")
    init_workspace(choices)
    edited = (choices.folder / "params.yaml").read_text() + "# mine\n"
    (choices.folder / "params.yaml").write_text(edited)
    assert not init_workspace(choices)
    assert (choices.folder / "params.yaml").read_text() == edited


@pytest.mark.parametrize(("pipeline", "profile"), itertools.product(PIPELINES, PROFILES))
def test_own_data_up_axis_and_lists_get_into_params(tmp_path: Path, meshes: Path, pipeline: str, profile: str) -> None:
    train, test = tmp_path / "tr.txt", tmp_path / "te.txt"
    train.write_text("chair/a.off\n")
    test.write_text("chair/b.off\n")
    folder = tmp_path / "work space"
    init_workspace(WorkspaceChoices(folder, pipeline, profile, data=meshes, train_list=train, test_list=test, up="y"))
    prepare = check_params(folder)["prepare"]
    assert (prepare["source"], prepare["up"]) == ("scans" if pipeline in SCENE_PIPELINES else "folder", "y")
    assert (folder / prepare["train_list"]).read_text() == train.read_text(), "relative: the workspace can be moved"
    assert not Path(prepare["train_list"]).is_absolute()
    assert open_workspace(folder).source == meshes
    assert "#" in (folder / "params.yaml").read_text(), "comments are kept"


def test_layout_of_scenes_is_recognised(tmp_path: Path, shared: Path) -> None:
    rooms = shared / "data" / "scenes" / "aws_worlds"
    for name, data, expected in (
        ("blocks", rooms, ("pointcept", "scannet20")),
        ("areas", rooms / "s3dis_layout", ("s3dis", "raw")),
        ("files", rooms.parent / "pcl_tutorials", ("scans", "files")),
    ):
        init_workspace(WorkspaceChoices(tmp_path / name, "scenes", "smoke", data=data))
        params = check_params(tmp_path / name)
        assert (params["prepare"]["source"], params["prepare"]["variant"]) == expected
        assert params["prepare"]["unlabelled_synthetic"] == 0  # only generated rooms have them
        assert {entry["grounding"] for entry in params["probe"].values()} == {None}
        init_workspace(WorkspaceChoices(tmp_path / f"{name}_paper", "scenes", "paper", data=data))
        assert "scenes" not in check_params(tmp_path / f"{name}_paper")["prepare"]
        init_workspace(WorkspaceChoices(tmp_path / f"{name}_boxes", "detection", "smoke", data=data))
        params = check_params(tmp_path / f"{name}_boxes")
        assert "scenes" not in params["prepare"]
        assert {entry["num_headings"] for entry in params["finetune"].values()} == {1 if name == "areas" else 12}


def test_scans_of_scannet_stay_along_the_walls(tmp_path: Path) -> None:
    write_tree(tmp_path / "raw", {"scene0000_00": "train", "scene0001_00": "val"})
    for profile in PROFILES:
        init_workspace(WorkspaceChoices(tmp_path / profile, "detection", profile, data=tmp_path / "raw"))
        prepare = check_params(tmp_path / profile)["prepare"]
        assert (prepare["source"], prepare["scenes"]) == ("scannet", {"aligned": True})


def test_other_choices_for_the_same_folder_are_refused(tmp_path: Path, meshes: Path) -> None:
    folder = tmp_path / "ws"
    init_workspace(WorkspaceChoices(folder, profile="smoke"))
    with pytest.raises(WorkspaceError, match=r"made for source 'raw', asked for .*my meshes.*another folder"):
        init_workspace(WorkspaceChoices(folder, profile="smoke", data=meshes))
    with pytest.raises(WorkspaceError, match="made for profile 'smoke', asked for 'demo'"):
        init_workspace(WorkspaceChoices(folder, profile="demo"))
    with pytest.raises(WorkspaceError, match="made for pipeline 'pretrain', asked for 'multimodal'"):
        init_workspace(WorkspaceChoices(folder, pipeline="multimodal", profile="smoke"))


def test_workspace_from_before_pipelines_is_one_of_pretrain(tmp_path: Path) -> None:
    choices = WorkspaceChoices(tmp_path / "ws", profile="smoke")
    init_workspace(choices)
    marker = choices.folder / "workspace.yaml"
    marker.write_text(marker.read_text().replace("pipeline: pretrain\n", ""))
    assert not init_workspace(choices)


def test_another_up_axis_for_the_same_folder_is_refused_not_ignored(tmp_path: Path, meshes: Path) -> None:
    choices = WorkspaceChoices(tmp_path / "ws", profile="smoke", data=meshes)
    init_workspace(choices)
    with pytest.raises(WorkspaceError, match=r"prepare.up 'auto', asked for 'x'; change it in its params.yaml"):
        init_workspace(replace(choices, up="x"))
    params = choices.folder / "params.yaml"
    params.write_text(params.read_text().replace("up: auto", "up: x"))
    assert not init_workspace(replace(choices, up="x"))
    assert not init_workspace(choices), "params.yaml is the user's to edit"


def test_lists_that_are_not_utf8_are_refused(tmp_path: Path, meshes: Path) -> None:
    (tmp_path / "l.txt").write_bytes("Stühle/a.off".encode("cp1252"))
    choices = WorkspaceChoices(
        tmp_path / "ws", data=meshes, train_list=tmp_path / "l.txt", test_list=tmp_path / "l.txt"
    )
    with pytest.raises(WorkspaceError, match=r"--train-list .* is not UTF-8"):
        init_workspace(choices)
    assert not choices.folder.exists()


@pytest.mark.parametrize("content", [b"source: [a\n b: :", b"\xff\xfe", b"- a"])
def test_damaged_settings_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "workspace.yaml").write_bytes(content)
    with pytest.raises(WorkspaceError, match=r"workspace.yaml is damaged; repair it, or make a new workspace: "):
        open_workspace(tmp_path)


def test_missing_workspace_names_those_beside_it(tmp_path: Path) -> None:
    init_workspace(WorkspaceChoices(tmp_path / "runs" / "shapes-demo", profile="smoke"))
    with pytest.raises(WorkspaceError, match=r"is no workspace .*\(in .*runs there are shapes-demo\)"):
        open_workspace(tmp_path / "runs" / "demo")


def test_other_lists_for_the_same_folder_are_refused(tmp_path: Path, meshes: Path) -> None:
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("chair/a.off\n")
    other.write_text("chair/b.off\n")
    folder = tmp_path / "ws"
    init_workspace(WorkspaceChoices(folder, profile="smoke", data=meshes, train_list=one, test_list=other))
    with pytest.raises(WorkspaceError, match=r"another lists/train\.txt"):
        init_workspace(WorkspaceChoices(folder, profile="smoke", data=meshes, train_list=other, test_list=one))


def test_interrupted_init_is_completed(tmp_path: Path) -> None:
    choices = WorkspaceChoices(tmp_path / "ws", profile="smoke")
    init_workspace(choices)
    for name in ("workspace.yaml", ".git", ".dvc/config"):
        path = choices.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(choices.folder / ".dvc")
    assert init_workspace(choices)
    open_workspace(choices.folder)


def test_files_of_others_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("mine: 1\n")
    with pytest.raises(WorkspaceError, match=r"params\.yaml is already there"):
        init_workspace(WorkspaceChoices(tmp_path, profile="smoke"))
    assert (tmp_path / "params.yaml").read_text() == "mine: 1\n"


def test_workspace_in_an_ignored_folder_of_a_repository_gets_its_own(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text("/runs/\n")
    init_workspace(WorkspaceChoices(tmp_path / "runs" / "demo", profile="smoke"))
    assert (tmp_path / "runs" / "demo" / ".git").is_dir()


def test_workspace_in_a_repository_belongs_to_it(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    init_workspace(WorkspaceChoices(tmp_path / "inside", profile="smoke"))
    assert not (tmp_path / "inside" / ".git").exists()
    assert (tmp_path / "inside" / ".dvc" / "config").is_file()


def test_workspace_works_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    init_workspace(WorkspaceChoices(tmp_path / "ws", profile="smoke"))
    assert "no_scm = True" in (tmp_path / "ws" / ".dvc" / "config").read_text()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nothing", r"nothing does not exist; give the folder"),
        (lambda folder: folder / "my meshes" / "chair" / "a.off", r"is a file, expected a folder"),
        (lambda folder: folder / "empty", r"empty is empty"),
    ],
)
def test_unusable_data_is_refused_before_anything_is_made(tmp_path: Path, meshes: Path, make, message: str) -> None:  # type: ignore[no-untyped-def]
    assert meshes.is_dir()
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorkspaceError, match=message):
        init_workspace(WorkspaceChoices(tmp_path / "ws", data=make(tmp_path)))
    assert not (tmp_path / "ws").exists()


def test_workspace_inside_its_data_is_refused(meshes: Path) -> None:
    with pytest.raises(WorkspaceError, match="inside the data"):
        init_workspace(WorkspaceChoices(meshes / "ws", data=meshes))


def test_one_list_alone_is_refused(tmp_path: Path, meshes: Path) -> None:
    lists = tmp_path / "train.txt"
    lists.write_text("chair/a.off\n")
    with pytest.raises(WorkspaceError, match="belong together"):
        init_workspace(WorkspaceChoices(tmp_path / "ws", data=meshes, train_list=lists))


def test_open_finds_the_workspace_around_a_folder(tmp_path: Path) -> None:
    init_workspace(WorkspaceChoices(tmp_path / "ws", profile="smoke"))
    assert open_workspace(tmp_path / "ws" / "raw").folder == tmp_path / "ws"
    with pytest.raises(WorkspaceError, match=r"is no workspace.*pointloom init"):
        open_workspace(tmp_path)


def test_settings_survive_a_path_with_special_characters(tmp_path: Path, meshes: Path) -> None:
    odd = tmp_path / "it's #1: große Daten"
    meshes.rename(odd)
    folder = tmp_path / "w's: #2"
    init_workspace(WorkspaceChoices(folder, profile="smoke", data=odd))
    assert yaml.safe_load((folder / "workspace.yaml").read_text())["source"] == str(odd)
    assert json.dumps(check_params(folder)["prepare"]["source"]) == '"folder"'

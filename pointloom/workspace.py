"""Make and open workspaces: a folder with dvc.yaml, params.yaml, their outputs, the runs' database and resume state."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from pointloom.errors import BackendError, WorkspaceError
from pointloom.plain_yaml import without_aliases

MARKER = "workspace.yaml"
PIPELINES = ("pretrain", "systems", "multimodal", "scenes", "detection")
SCENE_PIPELINES = ("scenes", "detection")
"""Pipelines whose data are rooms."""
PROFILES = ("smoke", "demo", "paper")
DVC_CONFIG = """[core]
    analytics = false
    autostage = false
[cache]
    type = "hardlink,reflink,symlink,copy"
"""
IGNORED = (
    *("/data/", "/models/", "/results/", "/report/", "/search/", "/state/"),
    *("/mlflow.db*", "/mlartifacts/"),
)
RAW_README = """# Raw shapes

This workspace makes its shapes itself (`prepare.source: synthetic` in params.yaml), so this folder stays empty.
For shapes of your own make a workspace with `pointloom init FOLDER --data PATH`.
"""
LISTS_README = """# Splits

`train.txt` and `test.txt`, one relative path per line, when the workspace was made with `--train-list` and
`--test-list`. Without them the split is drawn with a seed.
"""


@dataclass(frozen=True)
class WorkspaceChoices:
    """What a workspace is made for.

    Attributes:
        folder: Where to make it.
        pipeline: ``pretrain`` (Point-MAE), ``systems`` (every pre-training on points of objects alone), ``multimodal``
            (views, captions and teachers too), ``scenes`` (rooms: MM-3DScene and Masked Scene Modeling) or
            ``detection`` (objects in rooms: VoteNet, MM-3DScene on its backbone, 3DETR).
        profile: Name of a set of parameters of the pipeline.
        data: Folder of shapes, None for generated ones.
        train_list: File of relative paths, None for a drawn split.
        test_list: Likewise; both or none.
        up: Up axis of the files, None for the default of each file type.
        params: Text of ``params.yaml``, None for the profile's.
    """

    folder: Path
    pipeline: str = "pretrain"
    profile: str = "demo"
    data: Path | None = None
    train_list: Path | None = None
    test_list: Path | None = None
    up: str | None = None
    params: str | None = None


@dataclass(frozen=True)
class Workspace:
    """An existing workspace.

    Attributes:
        folder: Absolute path.
        settings: Content of ``workspace.yaml``.
    """

    folder: Path
    settings: dict[str, Any]

    @property
    def source(self) -> Path:
        """Return the absolute folder of the raw shapes."""
        return self.folder / str(self.settings["source"])


def template(name: str) -> str:
    """Return the text of a file that new workspaces are made from."""
    return (resources.files("pointloom") / "templates" / name).read_text(encoding="utf-8")


def open_workspace(folder: Path) -> Workspace:
    """Open the workspace that is, or is around, a folder.

    Raises:
        WorkspaceError: There is none, or its ``workspace.yaml`` is damaged.
    """
    start = folder.expanduser().absolute()
    for candidate in (start, *start.parents):
        marker = candidate / MARKER
        if marker.is_file():
            return Workspace(candidate, _settings(marker))
    beside = ", ".join(sorted(marker.parent.name for marker in start.parent.glob(f"*/{MARKER}")))
    raise WorkspaceError(
        f"{start} is no workspace and lies in none (no {MARKER}); make one: pointloom init {folder} --profile demo"
        + (f" (in {start.parent} there are {beside})" if beside else "")
    )


def _settings(marker: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(marker.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise WorkspaceError(f"{marker} is damaged; repair it, or make a new workspace: {error}") from error
    if not isinstance(settings, dict) or "source" not in settings:
        raise WorkspaceError(f"{marker} is damaged; repair it, or make a new workspace: it has no 'source'")
    return settings


def init_workspace(choices: WorkspaceChoices) -> bool:
    """Make a workspace; a second time with the same choices does nothing.

    Returns:
        True when it was made, False when it was already there.

    Raises:
        WorkspaceError: The folder is a workspace made for something else, holds other files of the same names, or the
            data is missing or contains the folder.
        BackendError: DVC is not installed.
    """
    require_dvc()
    folder = choices.folder.expanduser().resolve()
    files = _files(choices, folder)
    marker = folder / MARKER
    if marker.is_file():
        _check_same(folder, files, up=choices.up)
        return False
    for name, text in files.items():
        _write_new(folder / name, text)
    _init_dvc(folder)
    _write_new(marker, files[MARKER])
    _commit(folder, [*files, ".dvc/config", ".dvc/.gitignore", ".dvcignore"])
    return True


def require_dvc() -> None:
    """Raise a BackendError with the command to run when DVC is not installed."""
    if importlib.util.find_spec("dvc") is None:
        raise BackendError('workspaces need DVC, which is not installed; run: pip install "pointloom[workspace]"')


def _files(choices: WorkspaceChoices, folder: Path) -> dict[str, str]:
    """Return the text of every file of a new workspace; the marker comes last."""
    data = _checked_data(choices, folder)
    lists = _checked_lists(choices)
    settings = {
        "pipeline": choices.pipeline,
        "profile": choices.profile,
        "source": str(data) if data else "raw",
        "tracking_uri": "sqlite:///mlflow.db",  # in the workspace, wherever it is moved or copied to
        "experiment": folder.name,
    }
    files = {
        ".gitignore": "".join(f"{line}\n" for line in IGNORED),
        "dvc.yaml": template("dvc.yaml"),
        "params.yaml": without_aliases(choices.params or params_text(choices)),
        "raw/README.md": RAW_README,
        "lists/README.md": LISTS_README,
        **lists,
    }
    comment = "# What this workspace is made for; written by `pointloom init`.\n"
    return {**files, MARKER: comment + yaml.safe_dump(settings, sort_keys=False)}


def _checked_data(choices: WorkspaceChoices, folder: Path) -> Path | None:
    if choices.data is None:
        if choices.up or choices.train_list or choices.test_list:
            raise WorkspaceError("--up, --train-list and --test-list describe files of your own: give --data too")
        return None
    data = choices.data.expanduser().resolve()
    if not data.is_dir():
        kind = "is a file, expected a folder" if data.is_file() else "does not exist"
        raise WorkspaceError(f"--data {data} {kind}; give the folder that holds your meshes or point clouds")
    if not any(data.iterdir()):
        raise WorkspaceError(f"--data {data} is empty; give the folder that holds your meshes or point clouds")
    if folder.is_relative_to(data):
        raise WorkspaceError(
            f"the workspace {folder} would lie inside the data {data}, so that its outputs become inputs; "
            "choose a folder outside it"
        )
    if re.search(r"[\"$`\\\n]", str(data)):
        raise WorkspaceError(f'--data {data!s}: the path holds one of " $ ` \\, which DVC commands cannot carry')
    return data


def _checked_lists(choices: WorkspaceChoices) -> dict[str, str]:
    if (choices.train_list is None) != (choices.test_list is None):
        raise WorkspaceError("--train-list and --test-list belong together: give both or none")
    texts = {}
    for name, path in (("train", choices.train_list), ("test", choices.test_list)):
        if path is None:
            continue
        if not path.is_file():
            raise WorkspaceError(f"--{name}-list {path} does not exist; expected one relative path per line")
        try:
            texts[f"lists/{name}.txt"] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise WorkspaceError(f"--{name}-list {path} is not UTF-8 ({error}); save it as UTF-8") from error
    return texts


def params_text(choices: WorkspaceChoices) -> str:
    """Return the profile with the few values of ``prepare`` that the choices decide; comments are kept."""
    text = template(f"profiles/{choices.pipeline}/{choices.profile}.yaml")
    values = {}
    if choices.data is not None and choices.pipeline in SCENE_PIPELINES:
        from pointloom.datasets import recognise_scenes

        values["source"], values["variant"] = recognise_scenes(choices.data.expanduser().resolve())
        values["unlabelled_synthetic"] = "0"
        text = _fitted(text, values["source"])
    elif choices.data is not None:
        values["source"] = "folder"
    if choices.up:
        values["up"] = choices.up
    if choices.train_list is not None:
        values.update({f"{name}_list": f"lists/{name}.txt" for name in ("train", "test")})
    head, separator, tail = text.partition("\nprepare:\n")
    for key, value in values.items():
        line = re.search(rf"^  {key}: [^#\n]*?( *#.*)?$", tail, re.MULTILINE)
        if line is None:
            raise AssertionError(f"profile {choices.pipeline}/{choices.profile}: section prepare has no {key}")
        tail = f"{tail[: line.start()]}  {key}: {value}{line[1] or ''}{tail[line.end() :]}"
    return head + separator + tail


def _fitted(profile: str, source: str) -> str:
    """Leave out of a profile of scenes what the user's own ones do not have: generated rooms, sentences, axes."""
    if source == "scannet":
        return re.sub(
            r"^  scenes: \{rooms: .*$", "  scenes: {aligned: true}  # with the walls", profile, flags=re.MULTILINE
        )
    profile = re.sub(r"^  scenes: .*\n", "", profile, flags=re.MULTILINE)
    profile = re.sub(
        r"^    grounding: .*$", "    grounding: null  # there are no sentences", profile, flags=re.MULTILINE
    )
    if source in ("s3dis", "scannet_votenet"):
        return profile
    return re.sub(r"^    num_headings: 1$", "    num_headings: 12  # rooms may be turned", profile, flags=re.MULTILINE)


def _check_same(folder: Path, files: dict[str, str], *, up: str | None) -> None:
    """Compare what a workspace was made for with what is asked for now; edits of params.yaml are the user's right."""
    other = "choose another folder (make demo: NAME=...)"
    asked = yaml.safe_load(files[MARKER])
    present = {"pipeline": "pretrain"} | open_workspace(folder).settings  # older workspaces do not name the only one
    for key in ("pipeline", "profile", "source"):
        if present.get(key) != asked[key]:
            raise WorkspaceError(
                f"{folder} is a workspace made for {key} {present.get(key)!r}, asked for {asked[key]!r}; "
                f"{other}, or delete this one to start again"
            )
    for name in ("lists/train.txt", "lists/test.txt"):
        file = folder / name
        if (file.read_text(encoding="utf-8") if file.is_file() else None) != files.get(name):
            raise WorkspaceError(f"{folder} is a workspace made with another {name}; {other}")
    if up is not None and (present_up := _present_up(folder)) != up:
        raise WorkspaceError(
            f"{folder} is a workspace with prepare.up {present_up!r}, asked for {up!r}; change it in its params.yaml, "
            f"or {other}"
        )


def _present_up(folder: Path) -> Any:
    from pointloom.stages.read_params import read_yaml, select_section

    file = folder / "params.yaml"
    return select_section(read_yaml(file), "prepare.up", file)


def _write_new(path: Path, text: str) -> None:
    """Write a file, never over different content."""
    if path.exists():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return
        raise WorkspaceError(f"{path} is already there and is not from pointloom init; choose another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except (NotADirectoryError, FileExistsError) as error:
        raise WorkspaceError(f"{path.parent} cannot be made: {error}; choose another folder") from error


def _init_dvc(folder: Path) -> None:
    """Make the folder a DVC repository, inside its own git repository unless it already lies in one."""
    arguments = ["--no-scm"]
    if shutil.which("git"):
        ignored = _git(folder, "check-ignore", "--quiet", ".").returncode == 0
        inside = _git(folder, "rev-parse", "--is-inside-work-tree").returncode == 0 and not ignored
        own = (folder / ".git").exists()
        if not inside and not own:
            _git(folder, "init", "--quiet", "--initial-branch", "main")
        arguments = ["--subdir"] if inside and not own else []
    if not (folder / ".dvc" / "config").is_file():
        command = [sys.executable, "-m", "dvc", "init", "--quiet", *arguments]
        environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise WorkspaceError(f"dvc init failed in {folder}: {done.stderr.strip()}")
    config = DVC_CONFIG if arguments != ["--no-scm"] else DVC_CONFIG.replace("[cache]", "    no_scm = True\n[cache]")
    (folder / ".dvc" / "config").write_text(config, encoding="utf-8")


def _commit(folder: Path, names: list[str]) -> None:
    """Commit the new files when the folder is a git repository of its own: `dvc exp run` needs a commit."""
    if not (folder / ".git").exists():
        return
    _git(folder, "add", "--", *names)
    identity = [] if _git(folder, "config", "user.email").returncode == 0 else ["-c", "user.email=pointloom@localhost"]
    identity += [] if _git(folder, "config", "user.name").returncode == 0 else ["-c", "user.name=pointloom"]
    done = _git(folder, *identity, "commit", "--quiet", "--message", "New pointloom workspace")
    if done.returncode != 0:
        raise WorkspaceError(f"git commit failed in {folder}: {(done.stderr or done.stdout).strip()}")


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)

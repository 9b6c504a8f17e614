"""The parameters a pipeline runs with: a file, changed by ``--set``, validated as a whole."""

import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from pointloom.errors import ParamsError
from pointloom.stages.read_params import did_you_mean, read_yaml
from pointloom.stages.sections import check_params

PROFILES = Path(__file__).parents[1] / "pointloom" / "templates" / "profiles"
PIPELINES = ("pretrain", "systems", "multimodal", "scenes", "detection")


def profile_file(pipeline: str, profile: str) -> Path:
    """Return the parameters that come with pointloom."""
    return PROFILES / pipeline / f"{profile}.yaml"


def load_params(file: Path, changes: Sequence[str] = (), *, source: object = None) -> dict[str, Any]:
    """Read all sections, change some values, and check everything.

    Args:
        file: Parameters like ``params.yaml``.
        changes: ``pretrain.mae.epochs=20``; values are YAML.
        source: Folder of raw shapes, if there is one: it is read, also where the file says that objects are generated.

    Raises:
        ParamsError: The file or a change is wrong.
    """
    params = read_yaml(file)
    for change in changes:
        _apply(params, change, file)
    if source:
        _read_source(params, file)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "params.yaml"
        written.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        try:
            return check_params(Path(folder))
        except ParamsError as error:
            raise ParamsError(str(error).replace(str(written), str(file))) from None


def _read_source(params: dict[str, Any], file: Path) -> None:
    """Prepare raw shapes instead of generated ones, as ``pointloom init --data`` does.

    Raises:
        ParamsError: Rooms are generated, and it is not known which layout the folder has instead.
    """
    generated = (params.get("prepare") or {}).get("source")
    if generated == "synthetic_rooms":
        raise ParamsError(
            f"--source: {file} generates rooms; say what is in the folder: --set prepare.source=scans, or a data set "
            "of `pointloom datasets`"
        )
    if generated == "synthetic":
        params["prepare"] = params["prepare"] | {"source": "folder"}


def _apply(params: dict[str, Any], change: str, file: Path) -> None:
    """Change a value that exists, in its own section only: blocks shared by YAML anchors are separated first.

    Raises:
        ParamsError: The change is malformed, or names nothing that exists.
    """
    name, equals, text = change.partition("=")
    if not equals or not name:
        raise ParamsError(f"--set {change}: expected NAME=VALUE, for example pretrain.mae.epochs=20")
    *path, last = name.split(".")
    part: Any = params
    for key in path:
        if not isinstance(part, dict) or key not in part:
            known = list(map(str, part)) if isinstance(part, dict) else []
            raise ParamsError(f"--set {change}: {file} has no {key!r} there{did_you_mean(key, known)}")
        part[key] = deepcopy(part[key])
        part = part[key]
    if not isinstance(part, dict) or last not in part:
        known = list(map(str, part)) if isinstance(part, dict) else []
        raise ParamsError(f"--set {change}: {file} has no {last!r} there{did_you_mean(last, known)}")
    try:
        part[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParamsError(f"--set {change}: the value is not YAML: {error}") from error

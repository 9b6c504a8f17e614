"""The command line, dvc.yaml, params.yaml and the stage functions say the same."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from pointloom.plain_yaml import without_aliases
from pointloom.stages import STAGES
from pointloom.stages.sections import ENTRY_STAGES, REFERENCES
from pointloom.stages.signature import StageSignature, read_signature

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "pointloom"
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
SIGNATURES = {name: read_signature(name, function) for name, function in STAGES.items()}


def definition(stage: str) -> dict[str, Any]:
    found: dict[str, Any] = GRAPH[stage]
    return dict(found.get("do", found))


def options(stage: str) -> dict[str, str]:
    """Options of a stage's command, with DVC's placeholders as they are."""
    program, name, *words = shlex.split(definition(stage)["cmd"])
    assert (program, name) == ("pointloom", stage)
    assert all(word.startswith("--") for word in words[::2])
    return {word.removeprefix("--"): value for word, value in zip(words[::2], words[1::2], strict=True)}


def paths(stage: str, kind: str) -> list[str]:
    entries = definition(stage).get(kind, [])
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def test_dvc_runs_every_stage_and_nothing_else() -> None:
    assert list(GRAPH) == list(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_command_gives_every_argument_of_the_stage(stage: str) -> None:
    expected = {name for name, artifact in SIGNATURES[stage].artifacts.items() if artifact.direction != "state"}
    assert set(options(stage)) - {"params"} == expected


@pytest.mark.parametrize("stage", STAGES)
def test_paths_of_the_command_are_dependencies_and_outputs(stage: str) -> None:
    given, deps, outs, metrics = options(stage), paths(stage, "deps"), paths(stage, "outs"), paths(stage, "metrics")
    for name, artifact in SIGNATURES[stage].artifacts.items():
        if artifact.direction == "in":
            path = given[name]  # a dependency may be a folder inside, or one around
            assert any(dep == path or dep.startswith(f"{path}/") or path.startswith(f"{dep}/") for dep in deps), name
        elif artifact.kind == "Metrics":
            assert metrics == [given[name]]
        elif artifact.direction == "out":
            assert given[name] in outs


@pytest.mark.parametrize("stage", STAGES)
def test_tracked_parameters_are_those_the_command_reads(stage: str) -> None:
    (tracked,) = paths(stage, "params")
    assert options(stage)["params"] == f"params.yaml:{tracked}"
    assert tracked == (f"{stage}.${{key}}" if "foreach" in GRAPH[stage] else stage)


def test_stages_that_repeat_are_those_whose_sections_have_entries() -> None:
    assert [stage for stage in GRAPH if "foreach" in GRAPH[stage]] == [each for each in STAGES if each in ENTRY_STAGES]
    assert all(GRAPH[stage]["foreach"] == f"${{{stage}}}" for stage in STAGES if stage in ENTRY_STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_that_name_an_entry_lead_to_what_that_entry_makes(stage: str) -> None:
    named = {key: dep for dep in paths(stage, "deps") for key in re.findall(r"\$\{item\.(\w+)\}", dep)}
    assert set(named) == set(REFERENCES.get(stage, {}))
    for key, targets in REFERENCES.get(stage, {}).items():
        for target in targets:
            if target in GRAPH:
                assert named[key].replace(f"${{item.{key}}}", "${key}") in paths(target, "outs")


@pytest.mark.parametrize("stage", STAGES)
def test_stage_has_a_description_and_metrics_stay_out_of_the_cache(stage: str) -> None:
    assert definition(stage)["desc"]
    assert all(next(iter(entry.values())) == {"cache": False} for entry in definition(stage)["metrics"])


@pytest.mark.parametrize("stage", STAGES)
def test_every_artifact_and_parameter_is_explained(stage: str) -> None:
    signature: StageSignature = SIGNATURES[stage]
    assert signature.doc
    assert all(artifact.help for artifact in signature.artifacts.values())
    assert all(model.__doc__ for model in signature.params)


def test_workspaces_are_made_from_the_repositorys_own_files() -> None:
    templates = PACKAGE / "templates"
    assert (templates / "dvc.yaml").read_text() == (ROOT / "dvc.yaml").read_text()
    demo = (templates / "profiles" / "pretrain" / "demo.yaml").read_text()
    assert (ROOT / "params.yaml").read_text() == without_aliases(demo)


def test_files_and_functions_stay_short() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 60, f"{path}: {node.name} has {length} lines"


def test_readme_map_lists_the_top_level_of_the_repository() -> None:
    readme = (ROOT / "README.md").read_text()
    tree = next((block for block in re.findall(r"```[a-z]*\n(.*?)```", readme, re.DOTALL) if "pointloom/" in block), "")
    for name in ("pointloom/", "tests/", "docs/", "dvc.yaml", "params.yaml", "Makefile"):
        assert name in tree, f"the README's map has no {name}"


def test_only_tracking_imports_mlflow() -> None:
    importing = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^\s*(?:from|import) mlflow\b", path.read_text(), re.MULTILINE)
    }
    assert importing == {"train/tracking.py"}

"""Components say the same as the stages: names, kinds of artefacts, command line, parameters."""

from typing import Any

import pytest

pytest.importorskip("kfp", reason="kfp lives in .venv-kubeflow: make test-kubeflow")

from kfp.dsl import Metrics, Model

from components.report import report_of
from pipelines.compile import component_of
from pipelines.graph import SHARDS
from pointloom.cli import cli
from pointloom.stages import STAGES
from pointloom.stages.sections import ENTRY_STAGES
from pointloom.stages.signature import read_signature

KINDS = {"Dataset": "system.Dataset", "Model": "system.Model", "Metrics": "system.Metrics", "Report": "system.Artifact"}
SIGNATURES = {name: read_signature(name, function) for name, function in STAGES.items()}
GATHERED = {"data", "models", "results", "runs"}
"""Arguments of report that are folders around many artefacts, gathered by the stage itself."""


def spec(stage: str) -> Any:
    return component_of(stage).component_spec


def types(found: Any) -> dict[str, str]:
    return {name: one.type.partition("@")[0] for name, one in (found or {}).items()}


def options(stage: str) -> dict[str, Any]:
    return options_of(spec(stage))


def options_of(component: Any) -> dict[str, Any]:
    words = component.implementation.container.args
    assert all(word.startswith("--") for word in words[::2])
    return dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))


@pytest.mark.parametrize("stage", STAGES)
def test_inputs_and_outputs_are_those_of_the_stage(stage: str) -> None:
    artifacts = SIGNATURES[stage].artifacts
    inputs = {"params": "String"} | ({"name": "String"} if stage in ENTRY_STAGES else {})
    for name, artifact in artifacts.items():
        if artifact.direction == "in" and name not in GATHERED:
            inputs[name] = "String" if artifact.kind == "raw" else KINDS[artifact.kind]
        elif artifact.direction == "state":
            inputs[name] = "String"
    outputs = {name: KINDS[artifact.kind] for name, artifact in artifacts.items() if artifact.direction == "out"}
    if stage == "report":
        outputs["page"] = "system.HTML"
    assert types(spec(stage).inputs) == inputs
    assert types(spec(stage).outputs) == outputs


@pytest.mark.parametrize("stage", STAGES)
def test_command_line_is_the_stages(stage: str) -> None:
    container = spec(stage).implementation.container
    assert container.command == ["pointloom", stage]
    known = {option.removeprefix("--") for parameter in cli.commands[stage].params for option in parameter.opts}
    assert set(options(stage)) == known - {"shard", "num-shards"}
    assert options(stage)["executor-input"] == "{{$}}"


def test_stages_that_can_be_split_have_a_component_for_a_part() -> None:
    assert list(SHARDS) == [stage for stage, signature in SIGNATURES.items() if signature.splits]


@pytest.mark.parametrize("stage", SHARDS)
def test_a_part_is_the_same_command_with_a_number_and_makes_no_artefact(stage: str) -> None:
    part = SHARDS[stage].component_spec
    assert part.implementation.container.command == ["pointloom", stage]
    assert part.implementation.container.image == spec(stage).implementation.container.image
    given, whole = options_of(part), options(stage)
    assert set(given) == (set(whole) - {"executor-input"}) | {"shard", "num-shards"}
    assert types(part.inputs) == types(spec(stage).inputs) | {
        "shard": "Integer",
        "num_shards": "Integer",
    }
    assert not part.outputs
    made = {name for name, one in SIGNATURES[stage].artifacts.items() if one.direction == "out"}
    for name in set(whole) - {"executor-input"} - made:
        assert str(given[name]) == str(whole[name]), name
    for name in made:  # nobody reads them; the last part of the path is the entry's name
        assert getattr(given[name], "items", [given[name]])[0].startswith("/tmp/")
    for name in ("shard", "num_shards"):
        assert str(given[name.replace("_", "-")]) == f"{{{{$.inputs.parameters['{name}']}}}}"


@pytest.mark.parametrize("stage", STAGES)
def test_every_option_gets_the_value_of_its_own_name(stage: str) -> None:
    given = options(stage)
    inputs, outputs = types(spec(stage).inputs), types(spec(stage).outputs)
    for name in {"params", *SIGNATURES[stage].artifacts}:
        if name in GATHERED:
            expected = f"/tmp/inputs/{name}"
        elif name in outputs:
            expected = f"{{{{$.outputs.artifacts['{name}'].path}}}}"
        elif inputs[name] == "String":
            expected = f"{{{{$.inputs.parameters['{name}']}}}}"
        else:
            expected = f"{{{{$.inputs.artifacts['{name}'].path}}}}"
        assert str(given[name]) == expected


@pytest.mark.parametrize("stage", STAGES)
def test_description_is_the_stages(stage: str) -> None:
    assert spec(stage).description.splitlines()[0] == SIGNATURES[stage].doc.splitlines()[0]


def test_gathered_arguments_of_report_are_the_folders_around_many() -> None:
    assert {name for name, one in SIGNATURES["report"].artifacts.items() if one.direction == "in"} == {
        *GATHERED,
        "dataset",
    }


def test_report_takes_what_a_pipeline_has() -> None:
    found = report_of({"models__mae": Model, "runs__finetune__mae": Metrics}).component_spec
    assert types(found.inputs)["models__mae"] == "system.Model"
    assert types(found.inputs)["runs__finetune__mae"] == "system.Metrics"
    assert found.implementation.container.args == component_of("report").component_spec.implementation.container.args

"""One stage alone, as a pipeline of one step whose inputs are artefacts of earlier runs."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Model
from kfp.dsl.base_component import BaseComponent

from pipelines.cluster import Cluster
from pipelines.graph import Steps, argument, default_arguments, with_arguments
from pointloom.errors import ParamsError
from pointloom.stages import STAGES
from pointloom.stages.read_params import did_you_mean
from pointloom.stages.sections import ENTRY_STAGES
from pointloom.stages.signature import read_signature

KINDS: dict[str, type[Artifact]] = {"Dataset": Dataset, "Model": Model}


def choose_step(only: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """Return stage and entry of ``STAGE`` or ``STAGE.ENTRY``.

    Raises:
        ParamsError: There is no such stage or entry, or it is not clear which entry.
    """
    stage, _, entry = only.partition(".")
    if stage not in STAGES or stage == "report":
        known = [name for name in STAGES if name != "report"]
        raise ParamsError(f"--only {only}: expected one of {', '.join(known)}{did_you_mean(stage, known)}")
    entries = list(params[stage]) if stage in ENTRY_STAGES else [""]
    if entry and entry not in entries:
        raise ParamsError(f"--only {only}: section {stage!r} has {', '.join(entries) or 'no entry'}")
    if not entry and len(entries) != 1:
        choices = ", ".join(f"{stage}.{name}" for name in entries)
        raise ParamsError(f"--only {only}: give one entry: {choices or 'the section has none'}")
    return stage, entry or entries[0]


def build_single(
    component: BaseComponent,
    stage: str,
    entry: str,
    params: Mapping[str, Any],
    cluster: Cluster,
    *,
    inputs: Mapping[str, str],
    tag: str,
) -> BaseComponent:
    """Return the pipeline ``pointloom-only-STAGE``.

    Args:
        component: Component of the stage.
        stage: Name of the stage.
        entry: Entry of its section, empty where there is only one.
        params: All sections, validated.
        cluster: Where it runs.
        inputs: URI of every input artefact, by name.
        tag: Tag of the images.

    Raises:
        ParamsError: An input is missing or unknown.
    """
    artifacts = read_signature(stage, STAGES[stage]).artifacts
    needed = {name: found.kind for name, found in artifacts.items() if found.direction == "in" and found.kind != "raw"}
    if missing := [name for name in needed if name not in inputs]:
        raise ParamsError(f"--only {stage}: needs {', '.join(f'--input {name}=URI' for name in missing)}")
    if unknown := [name for name in inputs if name not in needed]:
        raise ParamsError(f"--only {stage}: has no input {unknown[0]!r}; it has {', '.join(needed) or 'none'}")
    everything = default_arguments(params, cluster)
    defaults = {name: everything[name] for name in ("source", "state", argument(stage, entry))}
    defaults |= {f"{name}_uri": inputs[name] for name in needed}

    def graph(*given: Any) -> None:
        arguments = dict(zip(defaults, given, strict=True))
        found = {
            name: dsl.importer(artifact_uri=arguments[f"{name}_uri"], artifact_class=KINDS[kind], reimport=False).output
            for name, kind in needed.items()
        }
        if "source" in component.component_spec.inputs:
            found["source"] = arguments["source"]
        Steps(cluster, tag, arguments, params).add(component, stage, entry, **found)

    return with_arguments(graph, f"pointloom-only-{stage}", f"Stage {stage} alone.", defaults)

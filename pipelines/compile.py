"""Compile all pipelines and components to YAML: ``python -m pipelines.compile``, or ``make compile``.

The files are committed, so that a change of a graph is seen in review and the pipelines can be uploaded by hand. They
hold the profile ``paper`` and the images of this version; ``pipelines.submit`` compiles with an image of its own.
"""

import importlib
import tempfile
from pathlib import Path
from typing import Any

import click
import yaml
from google.protobuf import json_format
from kfp import compiler
from kfp.dsl.base_component import BaseComponent
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from pipelines.cluster import Cluster, read_cluster
from pipelines.graph import SHARDS, build_pipeline
from pipelines.settings import PIPELINES, load_params, profile_file
from pointloom.errors import ParamsError
from pointloom.stages import STAGES

FOLDER = Path(__file__).with_name("compiled")
PROFILE = "paper"


def compiled(pipeline: BaseComponent) -> str:
    """Return a pipeline or component as YAML, after both messages that a cluster reads from it have been parsed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "package.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        text = path.read_text(encoding="utf-8")
    check_package(text)
    return text


def read_documents(text: str) -> list[dict[str, Any]]:
    """Return the YAML documents of a package: the pipeline, and what concerns Kubernetes where there is something."""
    return list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))  # the C one: 10 times faster


def check_package(text: str) -> None:
    """Parse a package the way a cluster does; ``deploymentSpec`` is free-form in the first message, so twice.

    Raises:
        ParamsError: A field is unknown or of the wrong type.
    """
    try:
        spec, *platform = read_documents(text)
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(spec["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
        for document in platform:
            json_format.ParseDict(document, pipeline_spec_pb2.PlatformSpec())
            executors = document["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
            for executor in executors.values():
                json_format.ParseDict(executor, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    except (json_format.ParseError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ParamsError(f"the compiled pipeline is not what Kubeflow Pipelines reads: {error}") from error


def component_of(stage: str) -> BaseComponent:
    """Return the component of a stage (or ``notify``)."""
    found: Any = getattr(importlib.import_module(f"components.{stage}"), stage)
    return found


def all_packages(cluster: Cluster) -> dict[str, str]:
    """Return every committed file's text by its path below ``compiled``."""
    found = {f"components/{stage}.yaml": compiled(component_of(stage)) for stage in (*STAGES, "notify")}
    found |= {f"components/{stage}_shard.yaml": compiled(component) for stage, component in SHARDS.items()}
    for name in PIPELINES:
        found[f"{name}.yaml"] = compiled(build_pipeline(name, load_params(profile_file(name, PROFILE)), cluster))
    return found


@click.command()
def main() -> None:
    """Write pipelines/compiled/."""
    for name, text in all_packages(read_cluster()).items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()

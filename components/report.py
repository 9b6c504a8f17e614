"""Component ``report``: the one whose inputs depend on the pipeline, because it looks at everything."""

import inspect
from collections.abc import Mapping

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Output
from kfp.dsl.base_component import BaseComponent

from components.images import DATA


def report_of(gathered: Mapping[str, type[Artifact]]) -> BaseComponent:
    """Return the component for a pipeline with some more inputs.

    A container cannot take the paths of a list of artefacts. So every artefact is an input of its own, named after its
    place: the stage finds ``models__mae`` in the executor input and links it as ``mae`` into the folder of models.

    Args:
        gathered: Kind of artefact by name of input; the part before ``__`` is an argument of the stage.
    """

    def report(
        params: str,
        dataset: Input[Dataset],
        report: Output[Artifact],
        page: Output[HTML],
        metrics: Output[Metrics],
        *others: Artifact,  # read by the stage from the executor input
    ) -> dsl.ContainerSpec:
        """Write the benchmark report: tables with paired intervals, pictures, costs and lineage, in one HTML file."""
        return dsl.ContainerSpec(
            image=DATA,
            command=["pointloom", "report"],
            args=[
                "--params", params,
                "--dataset", dataset.path,
                "--data", "/tmp/inputs/data",
                "--models", "/tmp/inputs/models",
                "--results", "/tmp/inputs/results",
                "--runs", "/tmp/inputs/runs",
                "--report", report.path,
                "--metrics", metrics.path,
                "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
            ],
        )  # fmt: skip

    signature = inspect.signature(report)
    *fixed, _ = signature.parameters.values()
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    more = [inspect.Parameter(name, kind, annotation=Input[found]) for name, found in gathered.items()]
    report.__signature__ = signature.replace(parameters=[*fixed, *more])  # type: ignore[attr-defined]
    return dsl.container_component(report)


report = report_of({})

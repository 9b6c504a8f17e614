"""Component ``prepare``."""

from kfp import dsl
from kfp.dsl import Dataset, Metrics, Output

from components.images import DATA


@dsl.container_component
def prepare(
    params: str,
    source: str,
    dataset: Output[Dataset],
    metrics: Output[Metrics],
    state: str = "/tmp/state",
) -> dsl.ContainerSpec:
    """Turn a folder of meshes and point clouds, or generated objects, into a prepared store."""
    return dsl.ContainerSpec(
        image=DATA,
        command=["pointloom", "prepare"],
        args=[
            "--params", params,
            "--source", source,
            "--dataset", dataset.path,
            "--metrics", metrics.path,
            "--state", state,
            "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )  # fmt: skip

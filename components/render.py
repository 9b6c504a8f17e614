"""Component ``render``."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

from components.images import DATA


@dsl.container_component
def render(
    name: str,
    params: str,
    source: str,
    dataset: Input[Dataset],
    views: Output[Dataset],
    metrics: Output[Metrics],
    state: str = "/tmp/state",
) -> dsl.ContainerSpec:
    """Render every object of a prepared store from several sides, in colour and depth.

    The stage finds ``name``, its entry in the parameters, in the executor input.
    """
    return dsl.ContainerSpec(
        image=DATA,
        command=["pointloom", "render"],
        args=[
            "--params", params,
            "--source", source,
            "--dataset", dataset.path,
            "--views", views.path,
            "--metrics", metrics.path,
            "--state", state,
            "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )  # fmt: skip

"""Component ``embed``."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

from components.images import MULTIMODAL


@dsl.container_component
def embed(
    name: str,
    params: str,
    dataset: Input[Dataset],
    views: Input[Dataset],
    captions: Input[Dataset],
    features: Output[Dataset],
    metrics: Output[Metrics],
    state: str = "/tmp/state",
) -> dsl.ContainerSpec:
    """Run captions and views of every object through frozen teachers and keep their features.

    The stage finds ``name``, its entry in the parameters, in the executor input.
    """
    return dsl.ContainerSpec(
        image=MULTIMODAL,
        command=["pointloom", "embed"],
        args=[
            "--params", params,
            "--dataset", dataset.path,
            "--views", views.path,
            "--captions", captions.path,
            "--features", features.path,
            "--metrics", metrics.path,
            "--state", state,
            "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )  # fmt: skip

"""Component ``align``."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components.images import TRAIN


@dsl.container_component
def align(
    name: str,
    params: str,
    dataset: Input[Dataset],
    features: Input[Dataset],
    encoder: Output[Model],
    result: Output[Artifact],
    metrics: Output[Metrics],
    state: str = "/tmp/state",
) -> dsl.ContainerSpec:
    """Align an encoder with captions and views (stage 1), classify and retrieve by text, and index all objects.

    The stage finds ``name``, its entry in the parameters, in the executor input.
    """
    return dsl.ContainerSpec(
        image=TRAIN,
        command=["pointloom", "align"],
        args=[
            "--params", params,
            "--dataset", dataset.path,
            "--features", features.path,
            "--encoder", encoder.path,
            "--result", result.path,
            "--metrics", metrics.path,
            "--state", state,
            "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )  # fmt: skip

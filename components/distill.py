"""Component ``distill``."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.images import TRAIN


@dsl.container_component
def distill(
    name: str,
    params: str,
    dataset: Input[Dataset],
    teacher: Input[Model],
    encoder: Output[Model],
    metrics: Output[Metrics],
    state: str = "/tmp/state",
) -> dsl.ContainerSpec:
    """Teach an encoder to see the aligned encoder's tokens and feature in a part of the cloud (stage 2).

    The stage finds ``name``, its entry in the parameters, in the executor input.
    """
    return dsl.ContainerSpec(
        image=TRAIN,
        command=["pointloom", "distill"],
        args=[
            "--params", params,
            "--dataset", dataset.path,
            "--teacher", teacher.path,
            "--encoder", encoder.path,
            "--metrics", metrics.path,
            "--state", state,
            "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )  # fmt: skip

"""Component ``pretrain``."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.images import TRAIN


@dsl.container_component
def pretrain(
    name: str,
    params: str,
    dataset: Input[Dataset],
    encoder: Output[Model],
    metrics: Output[Metrics],
    state: str = "/tmp/state",
) -> dsl.ContainerSpec:
    """Learn an encoder from unlabelled clouds or scenes (or write an untrained one to start from).

    The stage finds ``name``, its entry in the parameters, in the executor input.
    """
    return dsl.ContainerSpec(
        image=TRAIN,
        command=["pointloom", "pretrain"],
        args=[
            "--params", params,
            "--dataset", dataset.path,
            "--encoder", encoder.path,
            "--metrics", metrics.path,
            "--state", state,
            "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )  # fmt: skip

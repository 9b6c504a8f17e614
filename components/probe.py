"""Component ``probe``."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components.images import TRAIN


@dsl.container_component
def probe(
    name: str,
    params: str,
    dataset: Input[Dataset],
    encoder: Input[Model],
    result: Output[Artifact],
    metrics: Output[Metrics],
    state: str = "/tmp/state",
) -> dsl.ContainerSpec:
    """Classify objects, or the points of scenes, by the frozen features of an encoder.

    The stage finds ``name``, its entry in the parameters, in the executor input.
    """
    return dsl.ContainerSpec(
        image=TRAIN,
        command=["pointloom", "probe"],
        args=[
            "--params", params,
            "--dataset", dataset.path,
            "--encoder", encoder.path,
            "--result", result.path,
            "--metrics", metrics.path,
            "--state", state,
            "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )  # fmt: skip

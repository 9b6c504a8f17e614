"""Component ``caption``."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

from components.images import MULTIMODAL


@dsl.container_component
def caption(
    name: str,
    params: str,
    dataset: Input[Dataset],
    views: Input[Dataset],
    captions: Output[Dataset],
    metrics: Output[Metrics],
    state: str = "/tmp/state",
) -> dsl.ContainerSpec:
    """Write sentences about every object, best first.

    The stage finds ``name``, its entry in the parameters, in the executor input.
    """
    return dsl.ContainerSpec(
        image=MULTIMODAL,
        command=["pointloom", "caption"],
        args=[
            "--params", params,
            "--dataset", dataset.path,
            "--views", views.path,
            "--captions", captions.path,
            "--metrics", metrics.path,
            "--state", state,
            "--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )  # fmt: skip


@dsl.container_component
def caption_shard(
    name: str,
    params: str,
    dataset: Input[Dataset],
    views: Input[Dataset],
    shard: int,
    num_shards: int,
    state: str,
) -> dsl.ContainerSpec:
    """Describe a part of the objects and keep it in ``state``; component ``caption`` does the rest.

    It has no artefact: what it made is on the volume that all steps share, where ``caption`` finds it.
    """
    return dsl.ContainerSpec(
        image=MULTIMODAL,
        command=["pointloom", "caption"],
        args=[
            "--params", params,
            "--dataset", dataset.path,
            "--views", views.path,
            "--captions", dsl.ConcatPlaceholder(["/tmp/made/", name]),
            "--metrics", "/tmp/metrics.json",
            "--state", state,
            "--shard", shard,
            "--num-shards", num_shards,
        ],
    )  # fmt: skip

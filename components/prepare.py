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
    """Turn a folder of meshes, clouds or scenes, or generated ones, into a prepared store."""
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


@dsl.container_component
def prepare_shard(
    params: str,
    source: str,
    shard: int,
    num_shards: int,
    state: str,
) -> dsl.ContainerSpec:
    """Prepare a part of the objects and keep it in ``state``; component ``prepare`` does the rest.

    It has no artefact: what it made is on the volume that all steps share, where ``prepare`` finds it.
    """
    return dsl.ContainerSpec(
        image=DATA,
        command=["pointloom", "prepare"],
        args=[
            "--params", params,
            "--source", source,
            "--dataset", "/tmp/made",
            "--metrics", "/tmp/metrics.json",
            "--state", state,
            "--shard", shard,
            "--num-shards", num_shards,
        ],
    )  # fmt: skip

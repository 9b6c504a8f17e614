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


@dsl.container_component
def render_shard(
    name: str,
    params: str,
    source: str,
    dataset: Input[Dataset],
    shard: int,
    num_shards: int,
    state: str,
) -> dsl.ContainerSpec:
    """Render a part of the objects and keep it in ``state``; component ``render`` does the rest.

    It has no artefact: what it made is on the volume that all steps share, where ``render`` finds it.
    """
    return dsl.ContainerSpec(
        image=DATA,
        command=["pointloom", "render"],
        args=[
            "--params", params,
            "--source", source,
            "--dataset", dataset.path,
            "--views", dsl.ConcatPlaceholder(["/tmp/made/", name]),
            "--metrics", "/tmp/metrics.json",
            "--state", state,
            "--shard", shard,
            "--num-shards", num_shards,
        ],
    )  # fmt: skip

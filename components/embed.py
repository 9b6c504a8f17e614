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


@dsl.container_component
def embed_shard(
    name: str,
    params: str,
    dataset: Input[Dataset],
    views: Input[Dataset],
    captions: Input[Dataset],
    shard: int,
    num_shards: int,
    state: str,
) -> dsl.ContainerSpec:
    """Embed a part of captions and views and keep it in ``state``; component ``embed`` does the rest.

    It has no artefact: what it made is on the volume that all steps share, where ``embed`` finds it.
    """
    return dsl.ContainerSpec(
        image=MULTIMODAL,
        command=["pointloom", "embed"],
        args=[
            "--params", params,
            "--dataset", dataset.path,
            "--views", views.path,
            "--captions", captions.path,
            "--features", dsl.ConcatPlaceholder(["/tmp/made/", name]),
            "--metrics", "/tmp/metrics.json",
            "--state", state,
            "--shard", shard,
            "--num-shards", num_shards,
        ],
    )  # fmt: skip

"""What the training stages share: from validated parameters to the objects of the lower floors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pointloom.stages.params import OptimParams, SamplingParams

if TYPE_CHECKING:
    from pointloom.data.objects import Sampling
    from pointloom.data.shards import ObjectStore
    from pointloom.train.checkpoint import EncoderCard
    from pointloom.train.loop import Optimization


def as_sampling(params: SamplingParams) -> "Sampling":
    """Return the loader's description of sampling and augmentation."""
    from pointloom.data.objects import Sampling

    return Sampling(
        num_points=params.num_points,
        pool=params.pool,
        scale=(params.scale_min, params.scale_max),
        shift=params.shift,
        rotate_degrees=params.rotate_degrees,
    )


def as_optimization(params: OptimParams, *, epochs: int) -> "Optimization":
    """Return the loop's description of schedule and precision; a run shorter than the warm-up shortens it."""
    from pointloom.train.loop import Optimization

    return Optimization(
        epochs=epochs,
        lr=params.lr,
        min_lr=params.min_lr,
        weight_decay=params.weight_decay,
        warmup_epochs=min(params.warmup_epochs, 0.5 * epochs) if params.schedule == "step" else params.warmup_epochs,
        clip_norm=params.clip_norm,
        schedule=params.schedule,
        precision=params.precision,
    )


def result_header(
    stage: str, name: str, *, card: "EncoderCard", store: "ObjectStore", protocol: dict[str, Any]
) -> dict[str, Any]:
    """Return what every ``result.json`` begins with: encoder, data and protocol."""
    labelled = store.labels >= 0
    return {
        "format": 1,
        "stage": stage,
        "name": name,
        "task": "classification",
        "encoder": {
            "builder": card.builder,
            "method": card.method,
            "labels": card.labels,
            "sha256": card.weights_sha256,
            "num_parameters": card.num_parameters,
        },
        "data": {
            "digest": store.info.digest,
            "num_train": int((labelled & (store.splits == "train")).sum()),
            "num_test": int((labelled & (store.splits == "test")).sum()),
            "classes": list(store.info.classes),
        },
        "protocol": protocol,
    }


def summarise(runs: Sequence[dict[str, Any]], metrics: Sequence[str], *, prefix: str = "") -> dict[str, float]:
    """Return mean and standard deviation (n - 1; 0 for one run) of some metrics over runs."""
    import numpy as np

    summary = {}
    for metric in metrics:
        values = np.array([run[metric] for run in runs])
        summary[f"{prefix}{metric}/mean"] = float(values.mean())
        summary[f"{prefix}{metric}/std"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return summary

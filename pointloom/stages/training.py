"""What the training stages share: from validated parameters to the objects of the lower floors."""

from typing import TYPE_CHECKING

from pointloom.stages.params import OptimParams, SamplingParams

if TYPE_CHECKING:
    from pointloom.data.objects import Sampling
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

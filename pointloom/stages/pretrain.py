"""Stage ``pretrain``: learn an encoder without labels."""

from pathlib import Path
from typing import TYPE_CHECKING

from pointloom.stages.artifacts import DatasetIn, MetricsOut, ModelOut, StateDir
from pointloom.stages.pretrain_methods import (
    BUILDERS,
    LearningParams,
    PretrainParams,
    SceneLearningParams,
    UntrainedParams,
    write_untrained,
)
from pointloom.stages.pretrain_scenes import learn_scenes
from pointloom.stages.svm_watch import svm_watch
from pointloom.stages.training import as_optimization, as_sampling, output_folder, sample_batch, trained, write_curve

if TYPE_CHECKING:
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.runs import StageRun
    from pointloom.structures import PointBatch, PretrainingMethod


def pretrain(
    params: PretrainParams, *, dataset: DatasetIn, encoder: ModelOut, metrics: MetricsOut, state: StateDir
) -> None:
    """Learn an encoder from unlabelled clouds or scenes (or write an untrained one to start from)."""
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.runs import stage_run

    name = encoder.name
    inputs = {"dataset": dataset}
    with stage_run("pretrain", name=name, params=params, inputs=inputs, metrics=metrics, state=state) as run:
        with output_folder(encoder) as folder:
            if isinstance(params, UntrainedParams):
                write_untrained(params, folder)
            elif isinstance(params, SceneLearningParams):
                learn_scenes(params, dataset, folder, state=state, run=run)
            else:
                _learn(params, ObjectStore(dataset), folder, state=state, run=run)
        if not isinstance(params, UntrainedParams):
            run.register_encoder(encoder, name=name)


def _learn(params: LearningParams, store: "ObjectStore", folder: Path, *, state: Path, run: "StageRun") -> None:
    import numpy as np

    from pointloom.data.objects import ObjectLoader
    from pointloom.structures import as_module
    from pointloom.train.checkpoint import save_encoder

    method = _build(params)
    sampling = as_sampling(params.sampling)
    rows = np.concatenate([store.rows(split) for split in params.splits])
    settings = params.model_dump(mode="json")
    watch = svm_watch(method.encoder, store, params) if params.svm_every else (lambda _: None)
    with trained(
        as_module(method),
        ObjectLoader(store, rows, sampling=sampling, batch_size=params.batch_size, seed=params.seed),
        stage="pretrain",
        label=f"pretrain {params.method}",
        optimization=as_optimization(params.optim, epochs=params.epochs),
        seed=params.seed,
        shaped_by={"params": settings, "data": store.info.digest},
        state=state,
        run=run,
        on_epoch=watch,
    ) as curve:
        write_curve(folder / "curves.csv", curve)
        save_encoder(
            folder,
            as_module(method.encoder),
            builder=params.encoder,
            builder_args=params.encoder_args,
            method=params.method,
            labels="none",
            num_points=params.sampling.num_points,
            data_digest=store.info.digest,
            params=settings,
        )
        _write_samples(folder / "samples.npz", method, store, sample_batch(store, sampling))
    run.summary({"loss": curve[-1]["loss"], "epochs": params.epochs, "objects": len(rows)})


def _build(params: LearningParams) -> "PretrainingMethod":
    """Build the method with fresh weights.

    Raises:
        ParamsError: Values do not fit each other.
    """
    import torch

    from pointloom.errors import ParamsError

    torch.manual_seed(params.seed)
    try:
        return BUILDERS[params.method](params)
    except ValueError as error:
        raise ParamsError(f"pretrain: {error}") from error


def _write_samples(path: Path, method: "PretrainingMethod", store: "ObjectStore", batch: "PointBatch") -> None:
    """Reconstruct a few objects."""
    import numpy as np
    import torch

    from pointloom.structures import as_module
    from pointloom.train.device import best_device

    torch.manual_seed(0)
    as_module(method).eval()
    made = method.reconstruct(batch.coord.to(best_device()))
    np.savez_compressed(
        path,
        uid=store.uids[batch.row.numpy()],
        coord=batch.coord.numpy(),
        visible=made.visible.cpu().numpy(),
        reconstruction=made.points.float().cpu().numpy(),
    )

"""Stage ``pretrain``: learn an encoder without labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pointloom.stages.artifacts import DatasetIn, MetricsOut, ModelOut, StateDir
from pointloom.stages.params import OptimParams, SamplingParams, StageParams
from pointloom.stages.training import (
    as_optimization,
    as_sampling,
    sample_batch,
    trained,
    visible_points,
    write_curve,
)

if TYPE_CHECKING:
    from pointloom.data.shards import ObjectStore
    from pointloom.methods.mae import MAE
    from pointloom.stages.runs import StageRun
    from pointloom.structures import PointBatch


class UntrainedParams(StageParams):
    """Write fresh weights: the starting point of rows that are trained from scratch, one draw per seed later on."""

    method: Literal["untrained"]
    encoder: str = Field(description="builder in ENCODERS")
    encoder_args: dict[str, bool | int | float] = Field(description="arguments of the builder")
    num_points: int = Field(ge=16, description="points per cloud the encoder is meant for")
    seed: int = Field(ge=0)


class MAEParams(StageParams):
    """Point-MAE (Pang et al., 2022)."""

    method: Literal["mae"]
    encoder: str = Field(description="builder in ENCODERS")
    encoder_args: dict[str, bool | int | float] = Field(description="arguments of the builder")
    mask: Literal["random", "block"] = Field(description="how hidden patches are chosen")
    mask_ratio: float = Field(gt=0, lt=1, description="share of hidden patches")
    decoder_depth: int = Field(ge=1, description="decoder blocks")
    decoder_heads: int = Field(ge=1, description="attention heads of the decoder")
    decoder_drop_path: float = Field(ge=0, lt=1)
    loss_norm: Literal[1, 2] = Field(description="Chamfer distance of distances (1) or squared distances (2)")
    small_start: bool = Field(description="start with predictions of about a patch's size; not in the official code")
    embed_visible_only: bool = Field(
        description="skip hidden patches in the patch embedder: faster, other batch statistics than the official code"
    )
    splits: list[Literal["train", "pretrain"]] = Field(
        min_length=1, description="train: the labelled training objects (labels unused); pretrain: unlabelled extras"
    )
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    seed: int = Field(ge=0)
    sampling: SamplingParams
    optim: OptimParams


PretrainParams = Annotated[UntrainedParams | MAEParams, Field(discriminator="method")]


def pretrain(
    params: PretrainParams, *, dataset: DatasetIn, encoder: ModelOut, metrics: MetricsOut, state: StateDir
) -> None:
    """Learn an encoder from unlabelled clouds (or write an untrained one to start from)."""
    from pointloom.data.replace import replaced_folder
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.runs import stage_run

    name = encoder.name
    inputs = {"dataset": dataset}
    with stage_run("pretrain", name=name, params=params, inputs=inputs, metrics=metrics, state=state) as run:
        store = ObjectStore(dataset)
        with replaced_folder(encoder) as folder:
            if isinstance(params, UntrainedParams):
                _write_untrained(params, folder)
            else:
                _pretrain_mae(params, store, folder, state=state, run=run)
        if not isinstance(params, UntrainedParams):
            run.register_encoder(encoder, name=name)


def _write_untrained(params: UntrainedParams, folder: Path) -> None:
    import torch

    from pointloom.models import build_encoder
    from pointloom.train.checkpoint import save_encoder

    torch.manual_seed(params.seed)
    save_encoder(
        folder,
        build_encoder(params.encoder, **params.encoder_args),
        builder=params.encoder,
        builder_args=params.encoder_args,
        method="untrained",
        labels="none",
        num_points=params.num_points,
        data_digest=None,
        params=params.model_dump(mode="json"),
    )


def _pretrain_mae(params: MAEParams, store: "ObjectStore", folder: Path, *, state: Path, run: "StageRun") -> None:
    import numpy as np

    from pointloom.data.objects import ObjectLoader
    from pointloom.train.checkpoint import save_encoder

    method = _build_mae(params)
    sampling = as_sampling(params.sampling)
    rows = np.concatenate([store.rows(split) for split in params.splits])
    settings = params.model_dump(mode="json")
    with trained(
        method,
        ObjectLoader(store, rows, sampling=sampling, batch_size=params.batch_size, seed=params.seed),
        stage="pretrain",
        label=f"pretrain {params.method}",
        optimization=as_optimization(params.optim, epochs=params.epochs),
        seed=params.seed,
        shaped_by={"params": settings, "data": store.info.digest},
        state=state,
        run=run,
    ) as curve:
        write_curve(folder / "curves.csv", curve)
        save_encoder(
            folder,
            method.encoder,
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


def _build_mae(params: MAEParams) -> "MAE":
    import torch

    from pointloom.errors import ParamsError
    from pointloom.methods.mae import MAE
    from pointloom.models import build_encoder
    from pointloom.models.point_mae import PointMAEEncoder

    torch.manual_seed(params.seed)
    encoder = build_encoder(params.encoder, **params.encoder_args)
    if not isinstance(encoder, PointMAEEncoder):
        raise ParamsError(f"method mae pre-trains point_mae encoders, got {params.encoder!r}")
    encoder.embed_visible_only = params.embed_visible_only
    try:
        return MAE(
            encoder,
            mask_ratio=params.mask_ratio,
            mask=params.mask,
            decoder_depth=params.decoder_depth,
            decoder_heads=params.decoder_heads,
            drop_path=params.decoder_drop_path,
            loss_norm=params.loss_norm,
            small_start=params.small_start,
        )
    except ValueError as error:
        raise ParamsError(f"pretrain: {error}") from error


def _write_samples(path: Path, method: "MAE", store: "ObjectStore", batch: "PointBatch") -> None:
    """Reconstruct a few objects."""
    import numpy as np
    import torch

    from pointloom.train.device import best_device

    torch.manual_seed(0)
    method.eval()
    coord = batch.coord.to(best_device())
    made = method.reconstruct(coord)
    (level,) = method.encoder.group(coord)
    np.savez_compressed(
        path,
        uid=store.uids[batch.row.numpy()],
        coord=batch.coord.numpy(),
        visible=visible_points(level, made.hidden, num_points=coord.shape[1]),
        reconstruction=made.points.cpu().numpy(),
    )

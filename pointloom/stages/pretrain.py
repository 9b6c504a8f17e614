"""Stage ``pretrain``: learn an encoder without labels."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pointloom.stages.artifacts import DatasetIn, MetricsOut, ModelOut, StateDir
from pointloom.stages.params import OptimParams, SamplingParams, StageParams
from pointloom.stages.training import as_optimization, as_sampling

if TYPE_CHECKING:
    import torch

    from pointloom.data.objects import Sampling
    from pointloom.data.shards import ObjectStore
    from pointloom.methods.mae import MAE
    from pointloom.stages.runs import StageRun

NUM_SAMPLES = 8


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
    from tqdm import tqdm

    from pointloom.data.objects import ObjectLoader
    from pointloom.train.checkpoint import save_encoder
    from pointloom.train.device import best_device
    from pointloom.train.loop import fit
    from pointloom.train.state import resume_state

    device = best_device()
    method = _build_mae(params)
    sampling = as_sampling(params.sampling)
    rows = np.concatenate([store.rows(split) for split in params.splits])
    loader = ObjectLoader(store, rows, sampling=sampling, batch_size=params.batch_size, seed=params.seed)
    shaped_by = {"params": params.model_dump(mode="json"), "data": store.info.digest}

    def log(row: Mapping[str, float]) -> None:
        bar.update(int(row["epoch"]) - bar.n)
        bar.set_postfix(loss=f"{row['loss']:.5f}")
        run.log_metrics({"loss": row["loss"], "lr": row["lr"]}, step=int(row["epoch"]))

    with (
        resume_state(state, stage="pretrain", shaped_by=shaped_by) as resume,
        tqdm(total=params.epochs, desc=f"pretrain {params.method}", unit="epoch") as bar,
    ):
        optimization = as_optimization(params.optim, epochs=params.epochs)
        curve = fit(
            method, loader, optimization=optimization, device=device, seed=params.seed, state=resume, on_epoch=log
        )
        _write_curve(folder / "curves.csv", curve)
        save_encoder(
            folder,
            method.encoder,
            builder=params.encoder,
            builder_args=params.encoder_args,
            method=params.method,
            labels="none",
            num_points=params.sampling.num_points,
            data_digest=store.info.digest,
            params=params.model_dump(mode="json"),
        )
        _write_samples(folder / "samples.npz", method, store, sampling, device)
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


def _write_curve(path: Path, curve: list[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(curve[0]))
        writer.writeheader()
        writer.writerows(curve)


def _write_samples(
    path: Path, method: "MAE", store: "ObjectStore", sampling: "Sampling", device: "torch.device"
) -> None:
    """Reconstruct a few objects that were not trained on (training objects where there are no others), to look at."""
    import numpy as np
    import torch

    from pointloom.data.objects import ObjectLoader

    rows = store.rows("test") if len(store.rows("test")) else store.rows("train")
    rows = rows[np.linspace(0, len(rows) - 1, min(NUM_SAMPLES, len(rows))).astype(np.int64)]
    loader: ObjectLoader = ObjectLoader(store, rows, sampling=sampling, batch_size=len(rows), seed=0)
    (batch,) = loader.draw(0)
    torch.manual_seed(0)
    method.eval()
    coord = batch.coord.to(device)
    made = method.reconstruct(coord)
    (level,) = method.encoder.group(coord)
    visible = torch.zeros(coord.shape[:2], dtype=torch.bool, device=device)
    shown = torch.where(made.hidden.unsqueeze(-1), -1, level.index).flatten(1)
    for row, index in zip(visible, shown, strict=True):
        row[index[index >= 0]] = True
    arrays: dict[str, Any] = {
        "uid": store.uids[rows],
        "coord": batch.coord.numpy(),
        "visible": visible.cpu().numpy(),
        "reconstruction": made.points.cpu().numpy(),
    }
    np.savez_compressed(path, **arrays)

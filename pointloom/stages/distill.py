"""Stage ``distill``: stage 2 of the two-stage method, masked distillation from an aligned encoder."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pointloom.stages.artifacts import DatasetIn, MetricsOut, ModelIn, ModelOut, StateDir
from pointloom.stages.enough_points import check_enough_points
from pointloom.stages.params import EncoderArgs, OptimParams, SamplingParams, StageParams
from pointloom.stages.training import (
    as_optimization,
    as_sampling,
    output_folder,
    sample_batch,
    trained,
    write_curve,
)

if TYPE_CHECKING:
    from pointloom.data.shards import ObjectStore
    from pointloom.methods.distill import Distill
    from pointloom.stages.runs import StageRun
    from pointloom.structures import PointBatch
    from pointloom.train.checkpoint import EncoderCard


class DistillParams(StageParams):
    """Masked distillation from a frozen aligned encoder, which sees the whole cloud."""

    teacher: str = Field(description="entry of params.yaml:align to learn from")
    student: Literal["teacher", "fresh"] = Field(description="start from the teacher's weights, or from fresh ones")
    encoder_args: EncoderArgs = Field(description="builder arguments that differ from the teacher's")
    mask: Literal["random", "block"] = Field(description="how hidden patches are chosen")
    mask_ratio: float = Field(gt=0, lt=1, description="share of hidden patches")
    local_target: Literal["tokens", "multi", "points", "none"] = Field(
        description="tokens of the teacher at all patches (multi: of the two coarsest scales of a point_m2ae encoder), "
        "points of the hidden patches, or no local term"
    )
    local_weight: float = Field(gt=0, description="factor of the local term")
    global_term: bool = Field(description="predict the teacher's global feature from the visible tokens")
    shuffle: bool = Field(description="deal token contents out anew in front of the local decoder, not positions")
    decoder_depth: int = Field(ge=1, description="blocks of the local decoder")
    global_depth: int = Field(
        ge=0, description="blocks of the global decoder; 0 = the encoder's pooling and two linear layers"
    )
    decoder_heads: int = Field(ge=1, description="attention heads of both decoders")
    embed_visible_only: bool = Field(description="the student skips hidden patches in the patch embedder: faster")
    splits: list[Literal["train", "pretrain"]] = Field(
        min_length=1, description="train: the training objects (labels unused); pretrain: unlabelled extras"
    )
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    seed: int = Field(ge=0)
    sampling: SamplingParams
    optim: OptimParams


def distill(
    params: DistillParams,
    *,
    dataset: DatasetIn,
    teacher: ModelIn,
    encoder: ModelOut,
    metrics: MetricsOut,
    state: StateDir,
) -> None:
    """Teach an encoder to see the aligned encoder's tokens and feature in a part of the cloud (stage 2)."""
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.runs import stage_run
    from pointloom.train.checkpoint import read_card

    inputs = {"dataset": dataset, "teacher": teacher}
    with stage_run("distill", name=encoder.name, params=params, inputs=inputs, metrics=metrics, state=state) as run:
        store, card = ObjectStore(dataset), read_card(teacher)
        check_teacher(card, store, teacher)
        with output_folder(encoder) as folder:
            _distill(params, store, teacher, card, folder, state=state, run=run)
        run.register_encoder(encoder, name=encoder.name)


def check_teacher(card: "EncoderCard", store: "ObjectStore", folder: Path) -> None:
    """Refuse a teacher that may have seen objects which are test objects here.

    Raises:
        DataError: The teacher was trained on another store.
        CheckpointError: The teacher is untrained.
    """
    from pointloom.errors import CheckpointError, DataError

    if card.method == "untrained":
        raise CheckpointError(f"{folder}: an untrained encoder teaches nothing; give one that `pointloom align` wrote")
    if card.data_digest != store.info.digest:
        raise DataError(
            f"{folder}: the teacher was trained on data {str(card.data_digest)[:12]}, this store is "
            f"{store.info.digest[:12]}: its training objects may be test objects here; run `pointloom align` again"
        )


def _distill(
    params: DistillParams,
    store: "ObjectStore",
    teacher: Path,
    card: "EncoderCard",
    folder: Path,
    *,
    state: Path,
    run: "StageRun",
) -> None:
    import numpy as np

    from pointloom.data.objects import ObjectLoader
    from pointloom.train.checkpoint import save_encoder

    method = _build(params, teacher)
    sampling = as_sampling(params.sampling)
    rows = np.concatenate([store.rows(split) for split in params.splits])
    settings = params.model_dump(mode="json")
    with trained(
        method,
        ObjectLoader(store, rows, sampling=sampling, batch_size=params.batch_size, seed=params.seed),
        stage="distill",
        label="distill",
        optimization=as_optimization(params.optim, epochs=params.epochs),
        seed=params.seed,
        shaped_by={"params": settings, "data": store.info.digest, "teacher": card.weights_sha256},
        state=state,
        run=run,
    ) as curve:
        write_curve(folder / "curves.csv", curve)
        save_encoder(
            folder,
            method.encoder,
            builder=card.builder,
            builder_args=card.builder_args | params.encoder_args,
            method="distill",
            labels=card.labels,
            num_points=params.sampling.num_points,
            data_digest=store.info.digest,
            params=settings,
            parent_sha256=card.weights_sha256,
        )
        if params.local_target == "tokens":
            _write_samples(folder / "samples.npz", method, store, sample_batch(store, sampling))
    run.summary({"loss": curve[-1]["loss"], "epochs": params.epochs, "objects": len(rows)})


def _build(params: DistillParams, folder: Path) -> "Distill":
    """Build student and teacher.

    Raises:
        ParamsError: The teacher has no masked form, the parameters do not fit it, or there are more patches than clouds
            have points.
    """
    import torch

    from pointloom.errors import ParamsError
    from pointloom.methods.distill import Distill
    from pointloom.models import MaskedEncoder, build_encoder
    from pointloom.train.checkpoint import load_encoder_module

    torch.manual_seed(params.seed)
    teacher, card = load_encoder_module(folder)
    if params.student == "teacher":
        student, _ = load_encoder_module(folder, allow_missing=(), **params.encoder_args)
    else:
        student = build_encoder(card.builder, **(card.builder_args | params.encoder_args))
    if not isinstance(teacher, MaskedEncoder) or not isinstance(student, MaskedEncoder):
        raise ParamsError(
            f"distill: teacher {params.teacher!r} is {card.builder!r}, expected a point_mae or point_m2ae encoder"
        )
    check_enough_points(student, params.sampling.num_points, where="distill")
    student.embed_visible_only = params.embed_visible_only
    try:
        return Distill(
            student,
            teacher,
            mask_ratio=params.mask_ratio,
            mask=params.mask,
            local_target=params.local_target,
            local_weight=params.local_weight,
            global_term=params.global_term,
            shuffle=params.shuffle,
            decoder_depth=params.decoder_depth,
            global_depth=params.global_depth,
            decoder_heads=params.decoder_heads,
        )
    except ValueError as error:
        raise ParamsError(f"distill: {error}") from error


def _write_samples(path: Path, method: "Distill", store: "ObjectStore", batch: "PointBatch") -> None:
    """Compare student and teacher on a few objects."""
    import numpy as np
    import torch

    from pointloom.train.device import best_device

    torch.manual_seed(0)
    method.eval()
    likeness = method.compare(batch.coord.to(best_device()))
    np.savez_compressed(
        path,
        uid=store.uids[batch.row.numpy()],
        coord=batch.coord.numpy(),
        visible=likeness.visible.cpu().numpy(),
        centers=likeness.centers.cpu().numpy(),
        hidden=likeness.hidden.cpu().numpy(),
        cosine=likeness.cosine.float().cpu().numpy(),
    )

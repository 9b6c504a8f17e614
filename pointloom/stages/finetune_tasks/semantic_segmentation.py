"""Task ``semantic_segmentation``: the class of every point of a room, in blocks, over seeds (S3DIS)."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pointloom.stages.enough_points import check_enough_points
from pointloom.stages.finetune_tasks.base import (
    BestEpoch,
    Places,
    TuningParams,
    kept_outcome,
    result_folder,
    run_all,
    tuned_encoder,
    write_curves,
)
from pointloom.stages.finetune_tasks.part_segmentation import LabelledSamplingParams
from pointloom.stages.training import as_optimization, encoder_entry, summarise

if TYPE_CHECKING:
    import torch

    from pointloom.data.scene_store import SceneStore
    from pointloom.stages.finetune_tasks.base import Arrays
    from pointloom.stages.runs import StageRun
    from pointloom.tasks.room_blocks import BlockLoader
    from pointloom.tasks.semantic_segmentation import SemanticSegmentation
    from pointloom.train.checkpoint import EncoderCard
    from pointloom.train.parallel import Advance


class SemanticSegmentationParams(TuningParams):
    """Semantic segmentation of prepared rooms with an object encoder (ACT and Point-PQAE, code)."""

    task: Literal["semantic_segmentation"]
    seeds: list[int] = Field(min_length=1, description="one run per seed: head, order and place of blocks")
    epochs: int = Field(ge=1)
    train_areas: list[int] = Field(min_length=1, description="areas to learn from: 1, 2, 3, 4, 6 in the papers")
    test_areas: list[int] = Field(min_length=1, description="areas to test on: 5 in the papers")
    block_size: float = Field(gt=0, description="edge of a block in metres")
    min_points: int = Field(ge=1, description="a block must have more points than this")
    class_weights: bool = Field(description="weigh the loss by the cube root of the inverse class frequency")
    freeze_encoder: bool = Field(description="train the head alone")
    double_step: bool = Field(description="two updates per batch with the same gradients, as in the official code")
    sampling: LabelledSamplingParams


@dataclass(frozen=True)
class RoomJob:
    """One run: everything a worker process needs.

    Attributes:
        seed: Seed of head and blocks; of all weights where the encoder is untrained.
        state: Folder for resume state and, when done, the outcome.
    """

    params: SemanticSegmentationParams
    dataset: Path
    encoder: Path
    seed: int
    state: Path


def run_semantic_segmentation(params: SemanticSegmentationParams, places: Places, run: "StageRun") -> None:
    """Train and test every seed.

    Raises:
        DataError: There are no prepared rooms, or none of the areas.
        ParamsError: There is no segmentation head for the encoder, or an area is in training and test.
    """
    import numpy as np

    from pointloom.data.scene_store import SceneStore
    from pointloom.stages.runs import write_json
    from pointloom.train.checkpoint import read_card

    store, card = SceneStore(places.dataset), read_card(places.encoder)
    num_steps = _check(params, places, store)
    shaped_by = {"params": params.model_dump(mode="json"), "data": store.info.digest, "encoder": card.weights_sha256}
    with result_folder(places, shaped_by=shaped_by) as (folder, resume):
        jobs = [
            RoomJob(params, places.dataset, places.encoder, seed, resume / f"rooms-seed{seed}") for seed in params.seeds
        ]
        steps = [params.epochs * num_steps] * len(jobs)
        outcomes = run_all(run_room_job, jobs, steps=steps, label=f"finetune {places.encoder.name}")
        runs = [outcome["run"] for outcome in outcomes]
        header = _header(params, store, card, name=places.result.name)
        write_json(folder / "result.json", header | {"runs": runs})
        np.savez_compressed(
            folder / "predictions.npz",
            seed=np.array(params.seeds),
            confusion=np.stack([each["confusion"] for each in outcomes]),
        )
        write_curves(folder / "curves.csv", outcomes, keys=("seed",))
    run.summary(summarise(runs, ("miou", "macc", "oa")))


def _check(params: SemanticSegmentationParams, places: Places, store: "SceneStore") -> int:
    """Return the steps per epoch; find what cannot work before any training starts."""
    from pointloom.errors import ParamsError

    if both := sorted(set(params.train_areas) & set(params.test_areas)):
        raise ParamsError(f"finetune: areas {both} are in train_areas and in test_areas; a test needs areas of its own")
    steps = [
        len(_loader(params, store, areas=areas, seed=0)) for areas in (params.train_areas, params.test_areas)
    ]  # fmt: skip
    try:
        task = _build(params, places.encoder, store, None)
    except ValueError as error:
        raise ParamsError(f"finetune: {error}") from error
    check_enough_points(task.segmenter.encoder, params.sampling.num_points, where="finetune")
    return steps[0]


def _build(
    params: SemanticSegmentationParams, encoder: Path, store: "SceneStore", class_weight: "torch.Tensor | None"
) -> "SemanticSegmentation":
    from pointloom.tasks.semantic_segmentation import SemanticSegmentation

    return SemanticSegmentation(
        tuned_encoder(encoder, params.encoder_args),
        num_classes=len(store.info.classes),
        class_weight=class_weight,
        freeze_encoder=params.freeze_encoder,
    )


def _loader(params: SemanticSegmentationParams, store: "SceneStore", *, areas: list[int], seed: int) -> "BlockLoader":
    from pointloom.tasks.room_blocks import BlockLoader, BlockSampling

    sampling = BlockSampling(
        num_points=params.sampling.num_points,
        size=params.block_size,
        min_points=params.min_points,
        scale=(params.sampling.scale_min, params.sampling.scale_max),
        shift=params.sampling.shift,
    )
    return BlockLoader(store, areas, sampling=sampling, batch_size=params.batch_size, seed=seed)


def _header(
    params: SemanticSegmentationParams, store: "SceneStore", card: "EncoderCard", *, name: str
) -> dict[str, Any]:
    from pointloom.tasks.room_blocks import rows_of_areas

    return {
        "format": 1,
        "stage": "finetune",
        "name": name,
        "task": "semantic_segmentation",
        "encoder": encoder_entry(card),
        "data": {
            "digest": store.info.digest,
            "num_train": len(rows_of_areas(store, params.train_areas)),
            "num_test": len(rows_of_areas(store, params.test_areas)),
            "classes": list(store.info.classes),
        },
        "protocol": {
            "selection": params.selection,
            "epochs": params.epochs,
            "num_points": params.sampling.num_points,
            "block_size": params.block_size,
            "train_areas": params.train_areas,
            "test_areas": params.test_areas,
            "double_step": params.double_step,
            "test": "random blocks, pooled counts; not comparable with protocols that label every point of a scene",
            "seed_covers": "head, order and place of blocks; all weights where the encoder is untrained",
        },
    }


def run_room_job(job: RoomJob, advance: "Advance") -> dict[str, Any]:
    """Train and test one run; an outcome that is already on disk is returned as it is."""
    return kept_outcome(job.state, partial(_train_and_test, job, advance))


def _train_and_test(job: RoomJob, advance: "Advance") -> "tuple[dict[str, Any], Arrays]":
    import numpy as np
    import torch

    from pointloom.data.scene_store import SceneStore
    from pointloom.tasks.semantic_segmentation import confusion_counts, semantic_scores
    from pointloom.train.device import best_device
    from pointloom.train.loop import fit

    params, device, store = job.params, best_device(), SceneStore(job.dataset)
    train = _loader(params, store, areas=params.train_areas, seed=job.seed)
    test = _loader(params, store, areas=params.test_areas, seed=0)
    classes = store.info.classes
    torch.manual_seed(job.seed)
    weight = torch.from_numpy(train.class_weights()) if params.class_weights else None
    task = _build(params, job.encoder, store, weight)
    started = time.perf_counter()

    def evaluate() -> "Arrays":
        counts = confusion_counts(
            task, test.draw(1), num_classes=len(classes), device=device, precision=params.optim.precision
        )
        return {"confusion": counts}

    best = BestEpoch(
        job.state / "best.npz", evaluate, lambda found: semantic_scores(found["confusion"].astype(np.int64)).miou
    )
    curve = fit(
        task,
        train,
        optimization=as_optimization(params.optim, epochs=params.epochs, double_step=params.double_step),
        device=device,
        seed=job.seed,
        state=job.state,
        on_epoch=best.look if params.selection == "official" else lambda _: None,
        on_step=advance,
    )
    found = best.read() if params.selection == "official" else evaluate()
    scores = semantic_scores(found["confusion"].astype(np.int64))
    iou = {name: None if np.isnan(value) else float(value) for name, value in zip(classes, scores.iou, strict=True)}
    record = {
        "seed": job.seed, "epochs": params.epochs, "miou": scores.miou, "macc": scores.macc, "oa": scores.oa,
        "classes": iou, "loss": curve[-1]["loss"], "cpu_s": curve[-1]["cpu_s"],
        "wall_s": time.perf_counter() - started,
    }  # fmt: skip
    return {"run": record, "curve": curve}, found

"""Task ``part_segmentation``: the part of every point of an object, over seeds."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

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
from pointloom.stages.params import StageParams
from pointloom.stages.training import as_optimization, result_header, summarise

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from pointloom.data.part_clouds import PartLoader, PartSampling
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.finetune_tasks.base import Arrays
    from pointloom.stages.runs import StageRun
    from pointloom.tasks.part_segmentation import PartSegmentation
    from pointloom.train.parallel import Advance


class LabelledSamplingParams(StageParams):
    """Which labelled points the network sees and how clouds are changed while training."""

    num_points: int = Field(ge=16, description="points per cloud")
    scale_min: float = Field(gt=0, description="smallest factor, the same for all axes")
    scale_max: float = Field(gt=0, description="largest factor")
    shift: float = Field(ge=0, description="largest per-axis offset")

    @model_validator(mode="after")
    def _ordered(self) -> "LabelledSamplingParams":
        if self.scale_min > self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} must not exceed scale_max {self.scale_max}")
        return self


class PartSegmentationParams(TuningParams):
    """Part segmentation with all weights trained (ShapeNetPart)."""

    task: Literal["part_segmentation"]
    seeds: list[int] = Field(min_length=1, description="one run per seed: head, order of data, points")
    epochs: int = Field(ge=1)
    draws: int = Field(ge=1, description="random draws of the test points whose scores are averaged; the code has one")
    replacement: bool = Field(description="a point may be drawn twice, as in the official code")
    double_step: bool = Field(description="two updates per batch with the same gradients, as in the official code")
    sampling: LabelledSamplingParams


@dataclass(frozen=True)
class PartJob:
    """One run: everything a worker process needs.

    Attributes:
        seed: Seed of head, data order and points; of all weights where the encoder is untrained.
        state: Folder for resume state and, when done, the outcome.
    """

    params: PartSegmentationParams
    dataset: Path
    encoder: Path
    seed: int
    state: Path


def run_part_segmentation(params: PartSegmentationParams, places: Places, run: "StageRun") -> None:
    """Train and test every seed.

    Raises:
        DataError: The store has no part labels, or no labelled objects to train and test on.
        ParamsError: There is no segmentation head for the encoder, or it has more patches than clouds have points.
    """
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.runs import write_json
    from pointloom.train.checkpoint import read_card

    store, card = ObjectStore(places.dataset), read_card(places.encoder)
    counts = _check(params, places, store)
    header = result_header("finetune", places.result.name, card=card, store=store, protocol=_protocol(params))
    shaped_by = {"params": params.model_dump(mode="json"), "data": store.info.digest, "encoder": card.weights_sha256}
    with result_folder(places, shaped_by=shaped_by) as (folder, resume):
        jobs = [
            PartJob(params, places.dataset, places.encoder, seed, resume / f"part-seed{seed}") for seed in params.seeds
        ]
        num_train = len(_labelled_rows(store, "train"))
        steps = params.epochs * (num_train // min(params.batch_size, num_train))
        label = f"finetune {places.encoder.name}"
        outcomes = run_all(run_part_job, jobs, steps=[steps] * len(jobs), label=label)
        runs = [outcome["run"] for outcome in outcomes]
        parts = {name: list(store.info.parts[name]) for name in store.info.classes}
        write_json(
            folder / "result.json",
            header | {"task": "part_segmentation", "parts": parts, "num_parts": sum(counts), "runs": runs},
        )
        _write_predictions(folder / "predictions.npz", store, outcomes)
        write_curves(folder / "curves.csv", outcomes, keys=("seed",))
    run.summary(summarise(runs, ("miou_instance", "miou_class", "oa")))


def _check(params: PartSegmentationParams, places: Places, store: "ObjectStore") -> list[int]:
    """Return the number of parts per class; find what cannot work before any training starts."""
    from pointloom.data.part_clouds import PartLoader, part_counts
    from pointloom.errors import ParamsError
    from pointloom.tasks.part_segmentation import PartSegmentation

    counts = part_counts(store)
    for split in ("train", "test"):
        PartLoader(store, _labelled_rows(store, split), sampling=_sampling(params), batch_size=2, seed=0)
    encoder = tuned_encoder(places.encoder, params.encoder_args)
    check_enough_points(encoder, params.sampling.num_points, where="finetune")
    try:
        PartSegmentation(encoder, parts=counts)
    except ValueError as error:
        raise ParamsError(f"finetune: {error}") from error
    return counts


def _protocol(params: PartSegmentationParams) -> dict[str, Any]:
    return {
        "selection": params.selection,
        "epochs": params.epochs,
        "draws": params.draws,
        "num_points": params.sampling.num_points,
        "replacement": params.replacement,
        "double_step": params.double_step,
        "seed_covers": "head, order of data, points; all weights where the encoder is untrained",
    }


def _sampling(params: PartSegmentationParams) -> "PartSampling":
    from pointloom.data.part_clouds import PartSampling

    return PartSampling(
        num_points=params.sampling.num_points,
        replacement=params.replacement,
        scale=(params.sampling.scale_min, params.sampling.scale_max),
        shift=params.sampling.shift,
    )


def _labelled_rows(store: "ObjectStore", split: str) -> "NDArray[np.int64]":
    rows = store.rows(split)
    return rows[store.labels[rows] >= 0]


def run_part_job(job: PartJob, advance: "Advance") -> dict[str, Any]:
    """Train and test one run; an outcome that is already on disk is returned as it is."""
    return kept_outcome(job.state, partial(_train_and_test, job, advance))


def _train_and_test(job: PartJob, advance: "Advance") -> "tuple[dict[str, Any], Arrays]":
    import torch

    from pointloom.data.part_clouds import PartLoader, part_counts
    from pointloom.data.shards import ObjectStore
    from pointloom.tasks.part_segmentation import PartSegmentation
    from pointloom.train.device import best_device
    from pointloom.train.loop import fit

    params, device, store = job.params, best_device(), ObjectStore(job.dataset)
    counts = part_counts(store)
    train, test = (
        PartLoader(store, _labelled_rows(store, split), sampling=_sampling(params), batch_size=params.batch_size,
                   seed=seed)
        for split, seed in (("train", job.seed), ("test", 0))
    )  # fmt: skip
    torch.manual_seed(job.seed)
    task = PartSegmentation(tuned_encoder(job.encoder, params.encoder_args), parts=counts)
    started = time.perf_counter()
    evaluate = partial(_evaluate, task, test, params, counts, device)
    best = BestEpoch(job.state / "best.npz", evaluate, lambda found: float(found["iou"].mean()))
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
    record: dict[str, Any] = {"seed": job.seed, "num_train": len(train.rows), "epochs": params.epochs}
    record |= _scores(found, test.labels, store.info.classes)
    record |= {"loss": curve[-1]["loss"], "cpu_s": curve[-1]["cpu_s"], "wall_s": time.perf_counter() - started}
    return {"run": record, "curve": curve}, found


def _evaluate(
    task: "PartSegmentation", test: "PartLoader", params: PartSegmentationParams, counts: Sequence[int],
    device: "torch.device",
) -> "Arrays":  # fmt: skip
    """Return (draws, t) the mean IoU and the share of right points of every shape."""
    import numpy as np

    from pointloom.tasks.part_segmentation import evaluate_shapes

    draws = [
        evaluate_shapes(task, test.draw(1 + draw), parts=counts, device=device, precision=params.optim.precision)
        for draw in range(params.draws)
    ]
    return {"iou": np.stack([iou for iou, _ in draws]), "right": np.stack([right for _, right in draws])}


def _scores(found: "Arrays", category: "NDArray[np.int64]", classes: Sequence[str]) -> dict[str, Any]:
    """Return the two mean IoUs and the accuracy, averaged over draws."""
    from pointloom.tasks.part_segmentation import part_scores

    scores = part_scores(found["iou"].mean(0), found["right"].mean(0), category)
    return {
        "miou_instance": scores.miou_instance,
        "miou_class": scores.miou_class,
        "oa": scores.oa,
        "categories": {classes[label]: value for label, value in scores.categories.items()},
    }


def _write_predictions(path: Path, store: "ObjectStore", outcomes: list[dict[str, Any]]) -> None:
    """Write the mean IoU of every test object, averaged over draws, one row per seed."""
    import numpy as np

    rows = _labelled_rows(store, "test")
    np.savez_compressed(
        path,
        uid=store.uids[rows],
        label=store.labels[rows],
        seed=np.array([each["run"]["seed"] for each in outcomes]),
        iou=np.stack([each["iou"].mean(0) for each in outcomes]).astype(np.float32),
        point_accuracy=np.stack([each["right"].mean(0) for each in outcomes]).astype(np.float32),
    )

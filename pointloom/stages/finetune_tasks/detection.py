"""Task ``detection``: boxes around the objects of scenes, over seeds and shares of labelled scenes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from pointloom.stages.finetune_tasks.base import (
    BestEpoch,
    Places,
    TuningParams,
    kept_outcome,
    result_folder,
    run_all,
    write_curves,
)
from pointloom.stages.params import EncoderArgs, GrowingParams, StageParams
from pointloom.stages.scene_training import LabelEpochs, labelled_scenes, scene_header, skipped_without_classes
from pointloom.stages.training import as_optimization, summarise

if TYPE_CHECKING:
    from pointloom.data.detection_batches import DetectionLoader
    from pointloom.data.scene_store import SceneStore
    from pointloom.stages.finetune_tasks.base import Arrays
    from pointloom.stages.runs import StageRun
    from pointloom.tasks.detection import Detection, KeepRules
    from pointloom.tasks.detection_scores import DetectionScores
    from pointloom.train.checkpoint import EncoderCard
    from pointloom.train.parallel import Advance

NUM_SAMPLES = 4
DRAW = 1
"""Number of the random choice of points that is tested."""

MATCHES = ("score", "scene", "overlap", "partner")
"""Of a result's boxes, what scores and the report's intervals are made of."""
COLUMNS = ("epoch", "loss", "lr")


class CuboidParams(StageParams):
    """Random crops of 3DETR."""

    min_points: int = Field(ge=1, description="a crop must have more points than this")
    min_crop: float = Field(gt=0, le=1, description="smallest part of the scene along an axis")
    aspect: float = Field(ge=0, le=1, description="one pair of such parts must have at least this ratio")


class DetectionSamplingParams(StageParams):
    """Which points a detector sees and how scenes are changed while training."""

    num_points: int = Field(ge=16, description="points per scene")
    flip_x: bool = Field(description="mirror half of the scenes in x")
    flip_y: bool = Field(description="mirror half of the scenes in y")
    rotate_degrees: float = Field(ge=0, le=180, description="largest turn about the up axis, 0 = off")
    scale_min: float = Field(gt=0, description="smallest factor, the same for all axes")
    scale_max: float = Field(gt=0, description="largest factor")
    cuboid: CuboidParams | None = Field(description="null leaves scenes whole")

    @model_validator(mode="after")
    def _ordered(self) -> "DetectionSamplingParams":
        if self.scale_min > self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} must not exceed scale_max {self.scale_max}")
        return self


class MomentumParams(StageParams):
    """VoteNet's falling momentum of batch normalisation."""

    start: float = Field(gt=0, le=1)
    factor: float = Field(gt=0, le=1, description="what it is multiplied with")
    every_epochs: float = Field(gt=0, description="after how many epochs that happens")
    floor: float = Field(ge=0, le=1)


class KeepParams(StageParams):
    """Which boxes count in the evaluation; the papers' numbers are 0.25, 0.05 and 5."""

    nms_iou: float = Field(ge=0, le=1, description="a box that overlaps a better one of its class by more is left out")
    min_objectness: float = Field(ge=0, lt=1, description="a box must have more")
    min_points: int = Field(ge=0, description="points that must be in a box")


class DetectionParams(TuningParams, GrowingParams):
    """Detection of objects in prepared scenes with boxes."""

    task: Literal["detection"]
    detector: Literal["votenet", "h3dnet", "3detr", "3detr_m"]
    detector_args: EncoderArgs = Field(description="sizes to change, e.g. num_proposals or num_queries")
    object_scale: float | None = Field(
        gt=0, description="metres that an encoder of objects takes for an object's radius; null for one of scenes"
    )
    num_headings: int = Field(ge=1, description="parts of the circle; 1 makes all boxes axis-aligned")
    seeds: list[int] = Field(
        min_length=1, description="one run per seed: detector, order of data, points, labelled scenes"
    )
    label_epochs: LabelEpochs
    freeze_encoder: bool = Field(description="train the detector's own layers alone")
    momentum: MomentumParams | None = Field(description="null leaves batch normalisation at its own momentum")
    sampling: DetectionSamplingParams
    keep: KeepParams
    num_seeds: int | None = Field(
        default=None,
        ge=1,
        description="places at which an encoder of whole scenes (hunet, sr_unet, point_transformer) is read; null: "
        "2048; encoders that make seeds themselves have no such number",
    )


@dataclass(frozen=True)
class DetectionJob:
    """One run: everything a worker process needs.

    Attributes:
        fraction: Share of the training scenes.
        seed: Seed of detector, order, points and choice of scenes; of all weights where the encoder is untrained.
        state: Folder for resume state and, when done, the outcome.
    """

    params: DetectionParams
    dataset: Path
    encoder: Path
    fraction: float
    seed: int
    state: Path


def run_detection(params: DetectionParams, places: Places, run: "StageRun") -> None:
    """Train and test every share and seed.

    Raises:
        DataError: There are no prepared scenes with boxes to train and test on.
        ParamsError: The detector cannot be built with this encoder or these arguments.
    """
    import numpy as np

    from pointloom.data.scene_store import SceneStore
    from pointloom.stages.runs import write_json
    from pointloom.train.checkpoint import read_card

    store, card = SceneStore(places.dataset), read_card(places.encoder)
    header = _header(params, store, card, name=places.result.name)
    if skipped_without_classes(store, places.result, header):
        return
    _check(params, places, store)
    shaped_by = {"params": params.model_dump(mode="json"), "data": store.info.digest, "encoder": card.weights_sha256}
    with result_folder(places, shaped_by=shaped_by) as (folder, resume):
        jobs = [
            DetectionJob(
                params, places.dataset, places.encoder, fraction, seed, resume / f"boxes{fraction:g}-seed{seed}"
            )
            for fraction in sorted(params.label_epochs, reverse=True)
            for seed in params.seeds
        ]
        steps = [params.label_epochs[job.fraction] * len(_training_data(job, store)) for job in jobs]
        outcomes = run_all(run_detection_job, jobs, steps=steps, label=f"finetune {places.encoder.name}")
        runs = [outcome["run"] for outcome in outcomes]
        write_json(folder / "result.json", header | {"runs": runs})
        np.savez_compressed(folder / "predictions.npz", **_joined(outcomes))  # type: ignore[arg-type]
        _write_scenes(folder / "scenes.npz", params, store, outcomes[0])
        write_curves(folder / "curves.csv", outcomes, keys=("fraction", "seed"), columns=COLUMNS)
    whole = [each for each in runs if each["fraction"] == max(params.label_epochs)]
    run.summary(summarise(whole, ("ap25", "ap50", "ar25", "ar50")))


def _check(params: DetectionParams, places: Places, store: "SceneStore") -> None:
    """Find what cannot work before any training starts: larger shares of a seed have the boxes of its smallest one."""
    from pointloom.errors import DataError, ParamsError

    if not store.info.box_classes:
        raise DataError(f"{store.path}: these scenes have no boxes; detection needs a source that has them")
    if params.num_headings == 1 and not store.info.aligned:
        raise ParamsError(
            f"finetune: num_headings 1 makes boxes along the axes, but the scenes of {store.path} are not aligned with "
            "the walls; prepare them with scenes.aligned: true, or find turned boxes (12)"
        )
    _loader(params, store, store.rows("test"), seed=0)
    for seed in params.seeds:
        rows = labelled_scenes(store.rows("train"), fraction=min(params.label_epochs), seed=seed)
        sizes = _mean_sizes(params, store, rows)
    _build(params, places.encoder, sizes, num_steps=1)


def _training_data(job: DetectionJob, store: "SceneStore") -> "DetectionLoader":
    rows = labelled_scenes(store.rows("train"), fraction=job.fraction, seed=job.seed)
    return _loader(job.params, store, rows, seed=job.seed)


def _loader(params: DetectionParams, store: "SceneStore", rows: "NDArray[np.int64]", *, seed: int) -> "DetectionLoader":
    from pointloom.data.box_transforms import Cuboid
    from pointloom.data.detection_batches import DetectionLoader, DetectionSampling

    given = params.sampling
    sampling = DetectionSampling(
        num_points=given.num_points,
        oriented=params.num_headings > 1,
        flip_x=given.flip_x,
        flip_y=given.flip_y,
        rotate_degrees=given.rotate_degrees,
        scale=(given.scale_min, given.scale_max),
        cuboid=Cuboid(**given.cuboid.model_dump()) if given.cuboid else None,
    )
    return DetectionLoader(store, rows, sampling=sampling, batch_size=params.batch_size, seed=seed)


def _mean_sizes(params: DetectionParams, store: "SceneStore", rows: "NDArray[np.int64]") -> "NDArray[np.float32]":
    from pointloom.data.detection_batches import mean_sizes

    return mean_sizes(store, rows, num_classes=len(store.info.box_classes), oriented=params.num_headings > 1)


def _build(params: DetectionParams, encoder: Path, sizes: "NDArray[np.float32]", *, num_steps: int) -> "Detection":
    """Build the detector around the encoder's weights; ``sizes`` are the mean lengths (C, 3) of the classes' boxes.

    Raises:
        ParamsError: They do not fit each other, or an argument is unknown.
    """
    import torch

    from pointloom.stages.finetune_tasks.detectors import build_detector
    from pointloom.tasks.detection import Detection, MomentumSchedule

    detector = build_detector(
        params.detector, encoder, params.encoder_args, params.detector_args, object_scale=params.object_scale,
        num_seeds=params.num_seeds, mean_sizes=torch.from_numpy(sizes), num_headings=params.num_headings,
        freeze_encoder=params.freeze_encoder,
    )  # fmt: skip
    if params.momentum is None:
        return Detection(detector, momentum=None)
    given = params.momentum
    every = max(1, round(given.every_epochs * num_steps))
    schedule = MomentumSchedule(start=given.start, factor=given.factor, every=every, floor=given.floor)
    return Detection(detector, momentum=schedule)


def _header(params: DetectionParams, store: "SceneStore", card: "EncoderCard", *, name: str) -> dict[str, Any]:
    protocol = {
        "selection": params.selection,
        "label_epochs": {str(fraction): epochs for fraction, epochs in params.label_epochs.items()},
        "detector": params.detector,
        "detector_args": params.detector_args,
        "object_scale": params.object_scale,
        "num_seeds": params.num_seeds,
        "num_points": params.sampling.num_points,
        "boxes": "axis-aligned" if params.num_headings == 1 else "oriented",
        "freeze_encoder": params.freeze_encoder,
        "keep": params.keep.model_dump(),
        "test": "random points of every scene, one draw; every kept box counts for every class, with its probability",
        "seed_covers": "detector, order, points, labelled scenes; all weights where the encoder is untrained",
    }
    return scene_header("finetune", "detection", name=name, card=card, store=store, protocol=protocol)


def run_detection_job(job: DetectionJob, advance: "Advance") -> dict[str, Any]:
    """Train and test one run; an outcome that is already on disk is returned as it is."""
    return kept_outcome(job.state, partial(_train_and_test, job, advance))


def _train_and_test(job: DetectionJob, advance: "Advance") -> "tuple[dict[str, Any], Arrays]":
    import torch

    from pointloom.data.scene_store import SceneStore
    from pointloom.tasks.box_matches import match_boxes
    from pointloom.tasks.detection import find_boxes
    from pointloom.train.device import best_device
    from pointloom.train.loop import fit

    params, device, store = job.params, best_device(), SceneStore(job.dataset)
    train = _training_data(job, store)
    test = _loader(params, store, store.rows("test"), seed=0)
    torch.manual_seed(job.seed)
    task = _build(params, job.encoder, _mean_sizes(params, store, train.rows), num_steps=len(train))
    started, epochs = time.perf_counter(), params.label_epochs[job.fraction]

    def evaluate() -> "Arrays":
        found, truth = find_boxes(
            task.detector, test.draw(DRAW), rules=_rules(params), device=device, precision=params.optim.precision
        )
        matched = match_boxes(found, truth)
        return vars(found) | vars(matched) | {f"true_{name}": array for name, array in vars(truth).items()}

    best = BestEpoch(job.state / "best.npz", evaluate, lambda found: _scores(found, threshold=0.25).mean_ap)
    curve = fit(
        task,
        train,
        optimization=as_optimization(params.optim, epochs=epochs),
        device=device,
        seed=job.seed,
        state=job.state,
        on_epoch=best.look if params.selection == "official" else lambda _: None,
        on_step=advance,
    )
    found = best.read() if params.selection == "official" else evaluate()
    record = {
        "seed": job.seed, "fraction": job.fraction, "num_train": len(train.rows), "epochs": epochs,
        **_record(_scores(found, threshold=0.25), _scores(found, threshold=0.5), store.info.box_classes),
        "loss": curve[-1]["loss"], "cpu_s": curve[-1]["cpu_s"], "wall_s": time.perf_counter() - started,
    }  # fmt: skip
    return {"run": record, "curve": curve}, found


def _rules(params: DetectionParams) -> "KeepRules":
    from pointloom.tasks.detection import KeepRules

    return KeepRules(**params.keep.model_dump())


def _scores(arrays: "Arrays", *, threshold: float) -> "DetectionScores":
    from pointloom.tasks.detection_scores import MatchedBoxes, TrueBoxes, detection_scores

    found = MatchedBoxes(**{name: arrays[name] for name in MATCHES})  # type: ignore[arg-type]
    truth = TrueBoxes(arrays["true_boxes"], arrays["true_label"], arrays["true_scene"])  # type: ignore[arg-type]
    return detection_scores(found, truth, threshold=threshold)


def _record(at25: "DetectionScores", at50: "DetectionScores", classes: "Sequence[str]") -> dict[str, Any]:
    """Return the scores of a run; classes without a true box have null."""
    import math

    def known(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    return {
        "ap25": at25.mean_ap, "ap50": at50.mean_ap, "ar25": at25.mean_recall, "ar50": at50.mean_recall,
        "classes": {
            name: {"ap25": known(at25.ap[i]), "ap50": known(at50.ap[i])} for i, name in enumerate(classes)
        },
    }  # fmt: skip


def _joined(outcomes: "Sequence[dict[str, Any]]") -> "Arrays":
    """Return the boxes of all runs one after the other, each with its seed and share; the true ones once."""
    import numpy as np

    lengths = [len(each["boxes"]) for each in outcomes]
    run = {key: np.repeat([each["run"][key] for each in outcomes], lengths) for key in ("seed", "fraction")}

    arrays = {key: np.concatenate([each[key] for each in outcomes]) for key in ("boxes", *MATCHES)}
    true = {key: value for key, value in outcomes[0].items() if key.startswith("true_")}
    return run | arrays | true


def _write_scenes(path: Path, params: DetectionParams, store: "SceneStore", outcome: dict[str, Any]) -> None:
    """Write a few test scenes with the boxes that the first run found and the true ones, to look at."""
    import numpy as np

    rows = store.rows("test")
    rows = rows[np.linspace(0, len(rows) - 1, min(NUM_SAMPLES, len(rows))).astype(np.int64)]
    batches = list(_loader(params, store, rows, seed=0).draw(DRAW))
    coord, color = (np.concatenate([getattr(b, name).numpy() for b in batches]) for name in ("coord", "color"))
    found, true = np.isin(outcome["scene"], rows), np.isin(outcome["true_scene"], rows)
    np.savez_compressed(
        path,
        name=store.names[rows],
        coord=coord.reshape(-1, 3),
        color=(color.reshape(-1, 3) * 255).round().astype(np.uint8),
        offset=np.arange(1, len(rows) + 1) * coord.shape[1],
        box_scene=np.searchsorted(rows, outcome["scene"][found]),
        box_label=outcome["score"][found].argmax(1),
        box_score=outcome["score"][found].max(1),
        **_box_columns("box", outcome["boxes"][found]),  # type: ignore[arg-type]
        true_scene=np.searchsorted(rows, outcome["true_scene"][true]),
        true_label=outcome["true_label"][true],
        **_box_columns("true", outcome["true_boxes"][true]),  # type: ignore[arg-type]
    )


def _box_columns(prefix: str, boxes: "NDArray[np.float32]") -> "Arrays":
    return {f"{prefix}_center": boxes[:, :3], f"{prefix}_size": boxes[:, 3:6], f"{prefix}_heading": boxes[:, 6]}

"""Task ``scene_segmentation``: the class of every point of whole scenes, over seeds and shares of labelled scenes."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pointloom.stages.finetune_tasks.base import (
    BestEpoch,
    Places,
    TuningParams,
    kept_outcome,
    result_folder,
    run_all,
    write_curves,
)
from pointloom.stages.params import GrowingParams, SceneSamplingParams
from pointloom.stages.scene_training import (
    LabelEpochs,
    as_scene_sampling,
    check_lone_scene,
    labelled_scenes,
    scene_header,
    skipped_without_classes,
    tuned_scene_encoder,
)
from pointloom.stages.training import as_optimization, summarise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.data.scene_loading import SceneSource
    from pointloom.data.scene_store import SceneStore
    from pointloom.stages.finetune_tasks.base import Arrays
    from pointloom.stages.runs import StageRun
    from pointloom.tasks.scene_evaluation import Evaluation
    from pointloom.tasks.scene_segmentation import SceneScores, SceneSegmentation
    from pointloom.train.checkpoint import EncoderCard
    from pointloom.train.parallel import Advance

NUM_SHOWN = 2
SHOWN_POINTS = 60_000


class SceneSegmentationParams(TuningParams, GrowingParams):
    """Semantic segmentation of whole scenes with a scene encoder (ScanNet, S3DIS)."""

    task: Literal["scene_segmentation"]
    seeds: list[int] = Field(min_length=1, description="one run per seed: head, order of data, labelled scenes")
    label_epochs: LabelEpochs
    repeats: int = Field(ge=1, description="times every scene is drawn per epoch, a new crop and view each time")
    freeze_encoder: bool = Field(description="train the head alone, batch statistics stay as well")
    features: Literal["finest", "all"] = Field(description="what the head reads: the finest level, or all side by side")
    head: Literal["mlp", "linear"] = Field(description="mlp: linear, batch norm, ReLU, linear; linear: one layer")
    class_weights: bool = Field(description="weigh the loss by the cube root of the inverse class frequency")
    lovasz_weight: float = Field(ge=0, description="of the Lovász loss beside the cross-entropy, 0 = off")
    prefer_labelled: bool = Field(description="keep the labelled point of a voxel: for scenes with few labelled points")
    protocol: Literal["in_training", "precise"] = Field(
        description="in_training: one point per voxel speaks for all; precise: every point is seen at least once"
    )
    tta: Literal["none", "scannet", "s3dis"] = Field(
        description="precise: add up 13 (scannet) or 10 (s3dis) turned, scaled and mirrored copies"
    )
    sampling: SceneSamplingParams
    labelled_points: int | None = Field(
        default=None,
        ge=1,
        description="labelled points per training scene, drawn by seed; null: all that the store has (its official "
        "lists where it was prepared with them)",
    )


@dataclass(frozen=True)
class SceneJob:
    """One run: everything a worker process needs.

    Attributes:
        fraction: Share of the training scenes.
        seed: Seed of head, data and choice of scenes; of all weights where the encoder is untrained.
        state: Folder for resume state and, when done, the outcome.
    """

    params: SceneSegmentationParams
    dataset: Path
    encoder: Path
    fraction: float
    seed: int
    state: Path


def run_scene_segmentation(params: SceneSegmentationParams, places: Places, run: "StageRun") -> None:
    """Train and test every share and seed.

    Raises:
        DataError: There are no prepared scenes, or none to train or to test on.
        ParamsError: The encoder is none of scenes, or a value does not fit it.
    """
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
            SceneJob(params, places.dataset, places.encoder, fraction, seed, resume / f"share{fraction:g}-seed{seed}")
            for fraction in sorted(params.label_epochs, reverse=True)
            for seed in params.seeds
        ]
        steps = [_num_steps(job, store) for job in jobs]
        outcomes = run_all(run_scene_job, jobs, steps=steps, label=f"finetune {places.encoder.name}")
        runs = [outcome["run"] for outcome in outcomes]
        write_json(folder / "result.json", header | {"runs": runs})
        _write_predictions(folder / "predictions.npz", store, outcomes)
        _write_shown(folder / "scenes.npz", store, outcomes[0])
        write_curves(folder / "curves.csv", outcomes, keys=("fraction", "seed"))
    whole = [each for each in runs if each["fraction"] == max(params.label_epochs)]
    run.summary(summarise(whole, ("miou", "macc", "oa")))


def _check(params: SceneSegmentationParams, places: Places, store: "SceneStore") -> None:
    """Find what cannot work before any training starts."""
    from pointloom.errors import DataError, ParamsError

    for split in ("train", "test"):
        rows = store.rows(split)
        if not any((store.scene(row).segment >= 0).any() for row in rows.tolist()):
            raise DataError(f"{store.path}: none of its {len(rows)} {split} scenes has labelled points")
    if params.protocol == "in_training" and params.tta != "none":
        raise ParamsError(f"finetune: tta {params.tta!r} needs protocol 'precise', got {params.protocol!r}")
    try:
        task = _build(params, places.encoder, store, None)
    except ValueError as error:
        raise ParamsError(f"finetune: {error}") from error
    for seed in params.seeds:
        rows = labelled_scenes(store.rows("train"), fraction=min(params.label_epochs), seed=seed)
        batch_size = min(params.batch_size, len(rows) * params.repeats)
        check_lone_scene(task.encoder, store, rows, params.sampling, batch_size=batch_size, where="finetune")


def _num_steps(job: SceneJob, store: "SceneStore") -> int:
    params = job.params
    num = len(labelled_scenes(store.rows("train"), fraction=job.fraction, seed=job.seed)) * params.repeats
    return params.label_epochs[job.fraction] * (num // min(params.batch_size, num))


def _build(
    params: SceneSegmentationParams, encoder: Path, store: "SceneStore", counts: "NDArray[np.int64] | None"
) -> "SceneSegmentation":
    import numpy as np
    import torch

    from pointloom.tasks.scene_segmentation import SceneSegmentation

    weight = None
    if counts is not None:
        share = np.divide(counts.max(), counts, out=np.zeros(len(counts)), where=counts > 0)
        weight = torch.from_numpy(np.cbrt(share).astype(np.float32))
    return SceneSegmentation(
        tuned_scene_encoder(encoder, params.encoder_args),
        num_classes=len(store.info.classes),
        class_weight=weight,
        freeze_encoder=params.freeze_encoder,
        features=params.features,
        head=params.head,
        lovasz_weight=params.lovasz_weight,
    )


def _header(params: SceneSegmentationParams, store: "SceneStore", card: "EncoderCard", *, name: str) -> dict[str, Any]:
    chosen = {"selection", "freeze_encoder", "features", "head", "protocol", "tta", "repeats", "labelled_points"}
    protocol = params.model_dump(mode="json", include=chosen) | {
        "voxel_size": params.sampling.voxel_size,
        "label_epochs": {str(fraction): epochs for fraction, epochs in params.label_epochs.items()},
        "test": "every point of every test scene; classes that do not occur count 0 in mIoU and mean class accuracy",
        "seed_covers": "head, order of data, labelled scenes and points; all weights of an untrained encoder",
    }
    return scene_header("finetune", "scene_segmentation", name=name, card=card, store=store, protocol=protocol)


def run_scene_job(job: SceneJob, advance: "Advance") -> dict[str, Any]:
    """Train and test one run; an outcome that is already on disk is returned as it is."""
    return kept_outcome(job.state, partial(_train_and_test, job, advance))


def _train_and_test(job: SceneJob, advance: "Advance") -> "tuple[dict[str, Any], Arrays]":
    import numpy as np
    import torch

    from pointloom.data.scene_batches import SceneLoader
    from pointloom.data.scene_store import SceneStore
    from pointloom.datasets.limited_labels import FewPointLabels
    from pointloom.tasks.scene_evaluation import Evaluation
    from pointloom.train.device import best_device
    from pointloom.train.loop import fit

    params, store, device = job.params, SceneStore(job.dataset), best_device()
    rows = labelled_scenes(store.rows("train"), fraction=job.fraction, seed=job.seed)
    few = params.labelled_points
    labelled: SceneSource = store if few is None else FewPointLabels(store, few, seed=job.seed)
    sampling = as_scene_sampling(params.sampling, prefer_labelled=params.prefer_labelled or few is not None)
    train = SceneLoader(
        labelled, np.tile(rows, params.repeats), sampling=sampling, batch_size=params.batch_size, seed=job.seed
    )
    torch.manual_seed(job.seed)
    counts = _class_counts(labelled, rows, len(store.info.classes)) if params.class_weights else None
    task = _build(params, job.encoder, store, counts)
    how = Evaluation(params.protocol, params.tta, params.sampling.voxel_size, device, params.optim.precision)
    started, epochs = time.perf_counter(), params.label_epochs[job.fraction]
    best = BestEpoch(job.state / "best.npz", partial(_evaluate, task, store, how), lambda found: _scores(found).miou)
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
    found = best.read() if params.selection == "official" else best.evaluate()
    scores = _scores(found)
    iou = {
        name: None if np.isnan(value) else float(value)
        for name, value in zip(store.info.classes, scores.iou, strict=True)
    }
    record = {
        "seed": job.seed, "fraction": job.fraction, "num_train": len(rows), "epochs": epochs, "miou": scores.miou,
        "miou_present": scores.miou_present, "macc": scores.macc, "oa": scores.oa, "classes": iou,
        "loss": curve[-1]["loss"], "cpu_s": curve[-1]["cpu_s"], "wall_s": time.perf_counter() - started,
    }  # fmt: skip
    return {"run": record, "curve": curve}, found


def _scores(found: "Arrays") -> "SceneScores":
    import numpy as np

    from pointloom.tasks.scene_segmentation import scene_scores

    return scene_scores(found["confusion"].astype(np.int64).sum(0))


def _class_counts(store: "SceneSource", rows: "NDArray[np.int64]", num: int) -> "NDArray[np.int64]":
    """Return (c,) the labelled points of every class."""
    import numpy as np

    counts = np.zeros(num, dtype=np.int64)
    for row in rows.tolist():
        segment = store.scene(row).segment
        counts += np.bincount(segment[segment >= 0], minlength=num)
    return counts


def _evaluate(task: "SceneSegmentation", store: "SceneStore", how: "Evaluation") -> "Arrays":
    """Return (scenes, c, c) counts and the predictions of the first scenes, one after the other."""
    import numpy as np

    from pointloom.data.scene_batches import scene_points
    from pointloom.tasks.scene_evaluation import label_scene
    from pointloom.tasks.scene_segmentation import count_confusion

    was_training, counts = task.training, []
    shown: list[NDArray[np.int16]] = []
    task.eval()
    for row in store.rows("test").tolist():
        points = scene_points(store.scene(row))
        label = label_scene(task, points, how)
        counts.append(count_confusion(points.segment, label, len(store.info.classes)).astype(np.int32))
        if len(shown) < NUM_SHOWN:
            shown.append(label.astype(np.int16))
    task.train(was_training)
    return {"confusion": np.stack(counts), "shown": np.concatenate(shown)}


def _write_predictions(path: Path, store: "SceneStore", outcomes: list[dict[str, Any]]) -> None:
    """Write the counts of every run and test scene, (runs, scenes, c, c)."""
    import numpy as np

    np.savez_compressed(
        path,
        name=store.names[store.rows("test")],
        seed=np.array([each["run"]["seed"] for each in outcomes]),
        fraction=np.array([each["run"]["fraction"] for each in outcomes]),
        confusion=np.stack([each["confusion"] for each in outcomes]),
    )


def _shown_scenes(store: "SceneStore", prediction: "NDArray[np.int16]") -> "Iterator[Arrays]":
    """Yield the first test scenes with their predictions, thinned out where they are large."""
    import numpy as np

    from pointloom.data.materials import NEUTRAL
    from pointloom.data.scene_transforms import thin

    start = 0
    for row in store.rows("test")[:NUM_SHOWN].tolist():
        scene = store.scene(row)
        kept = thin(scene.coord, SHOWN_POINTS)
        own, start = prediction[start : start + len(scene.coord)], start + len(scene.coord)
        color = np.full((len(kept), 3), NEUTRAL, dtype=np.uint8) if scene.color is None else scene.color[kept]
        yield {"coord": scene.coord[kept], "color": color, "label": scene.segment[kept], "prediction": own[kept]}


def _write_shown(path: Path, store: "SceneStore", outcome: dict[str, Any]) -> None:
    """Write a few test scenes with what the first run says of them."""
    import numpy as np

    scenes = list(_shown_scenes(store, outcome["shown"]))
    np.savez_compressed(
        path,
        name=store.names[store.rows("test")[:NUM_SHOWN]],
        offset=np.cumsum([len(each["coord"]) for each in scenes]),
        **{key: np.concatenate([each[key] for each in scenes]) for key in scenes[0]},  # type: ignore[arg-type]
    )

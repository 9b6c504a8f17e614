"""Stage ``probe`` on scenes: how much the frozen features of a scene encoder tell."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pointloom.stages.params import HeadParams, StageParams
from pointloom.stages.probe_grounding import BoxesOfScene, GroundingParams, boxes_of_scene, grounding_record
from pointloom.stages.training import encoder_entry, summarise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.data.scene_store import SceneStore
    from pointloom.data.scenes import Scene
    from pointloom.stages.runs import StageRun
    from pointloom.structures import SceneEncoder
    from pointloom.tasks.instance_segmentation import InstanceHeads, PointTargets, Scored
    from pointloom.tasks.scene_probing import LinearProbe, NearestProbe, PointFeatures

    Arrays = dict[str, NDArray[np.generic]]

NUM_SHOWN = 2


class InstanceParams(HeadParams):
    """Instance segmentation with heads on frozen features (PointGroup)."""

    ignored: list[str] = Field(description="classes without instances, such as wall and floor")
    radius: float = Field(gt=0, description="metres; moved points closer than this belong together")
    smallest: int = Field(ge=1, description="points of the smallest instance that is found or scored")


class SceneProbeParams(StageParams):
    """Protocols on the frozen features of scenes (MSM, section 4)."""

    task: Literal["scenes"]
    encoder: str = Field(description="entry of params.yaml:pretrain to probe")
    seeds: list[int] = Field(
        min_length=1, description="labelled scenes, points, heads; all weights where the encoder is untrained"
    )
    fractions: list[float] = Field(min_length=1, description="shares of the training scenes whose labels are used")
    points_per_scene: int = Field(ge=64, description="labelled points per training scene that heads learn from")
    precision: Literal["bf16", "fp32"] = Field(description="bf16: matrix products in bfloat16")
    linear: HeadParams | None = Field(description="one linear layer; null leaves the protocol out")
    nearest: Literal["l2", "l1", "cosine"] | None = Field(
        description="distance to labelled super-points; null leaves the protocol out"
    )
    instances: InstanceParams | None = Field(description="instance segmentation; null leaves it out")
    grounding: GroundingParams | None = Field(description="which box a sentence means; null leaves it out")


@dataclass(frozen=True)
class _Features:
    """Frozen features of all points of a scene, and what is known of them."""

    scene: "Scene"
    points: "PointFeatures"


@dataclass(frozen=True)
class _Kept:
    """What the heads learn from one scene."""

    superpoints: "PointFeatures"
    targets: "PointTargets"
    boxes: BoxesOfScene | None


def run_scene_probe(params: SceneProbeParams, *, dataset: Path, encoder: Path, result: Path, run: "StageRun") -> None:
    """Classify points by the frozen features of an encoder.

    Raises:
        DataError: There are no labelled training scenes or no test scenes.
        ParamsError: A class without instances is unknown.
    """
    import numpy as np

    from pointloom.data.replace import replaced_folder
    from pointloom.data.scene_store import SceneStore
    from pointloom.stages.runs import write_json
    from pointloom.train.checkpoint import read_card

    store, card = SceneStore(dataset), read_card(encoder)
    _check(params, store)
    runs: list[dict[str, Any]] = []
    confusions: list[NDArray[np.int64] | None] = []
    shown: Arrays = {}
    with replaced_folder(result) as folder:
        for seed in params.seeds:
            module = _build(encoder, seed, untrained=card.method == "untrained")
            train = [_learnable(each, params, seed=seed) for each in _encode(module, store, "train", params)]
            for fraction in params.fractions:
                order = np.random.default_rng(seed).permutation(len(train))
                chosen = [train[i] for i in order[: max(1, round(fraction * len(train)))]]
                found, arrays = _test(params, store, module, chosen, seed=seed)
                confusions += [record.pop("confusion", None) for record in found]
                runs += [{**record, "seed": seed, "fraction": fraction} for record in found]
                shown = shown or arrays
        header = {
            "format": 1,
            "stage": "probe",
            "name": result.name,
            "task": "scene_probe",
            "encoder": encoder_entry(card),
            "data": {
                "digest": store.info.digest,
                "num_train": len(store.rows("train")),
                "num_test": len(store.rows("test")),
                "classes": list(store.info.classes),
            },
            "protocol": params.model_dump(
                mode="json", include={"linear", "nearest", "instances", "grounding", "points_per_scene"}
            )
            | {
                "test": "every point of every test scene",
                "seed_covers": SceneProbeParams.model_fields["seeds"].description,
            },
        }
        write_json(folder / "result.json", header | {"runs": runs})
        if shown:
            np.savez_compressed(folder / "scenes.npz", **shown)
            none = np.zeros_like(next(counts for counts in confusions if counts is not None))
            kept = np.stack([none if counts is None else counts for counts in confusions])
            np.savez_compressed(folder / "predictions.npz", confusion=kept)
    whole = max(params.fractions)
    for protocol in dict.fromkeys(record["protocol"] for record in runs):
        records = [record for record in runs if record["protocol"] == protocol and record["fraction"] == whole]
        metric = {"instances": "ap50", "grounding": "overall"}.get(protocol, "miou")
        run.summary(summarise(records, (metric,), prefix=f"{protocol}/"))


def _check(params: SceneProbeParams, store: "SceneStore") -> None:
    from pointloom.errors import DataError, ParamsError

    for split in ("train", "test"):
        if not len(store.rows(split)):
            raise DataError(f"{store.path}: there is no {split} scene to probe with")
    if params.instances and (unknown := set(params.instances.ignored) - set(store.info.classes)):
        raise ParamsError(
            f"probe.instances.ignored: unknown classes {sorted(unknown)}; known: {', '.join(store.info.classes)}"
        )


def _build(folder: Path, seed: int, *, untrained: bool) -> "SceneEncoder":
    import torch

    from pointloom.models import build_scene_encoder
    from pointloom.structures import as_module
    from pointloom.train.checkpoint import load_scene_encoder_module, read_card
    from pointloom.train.device import best_device

    card = read_card(folder)
    torch.manual_seed(seed)
    module = (
        build_scene_encoder(card.builder, **card.builder_args) if untrained else load_scene_encoder_module(folder)[0]
    )
    as_module(module).to(best_device()).eval()
    return module


def _encode(module: "SceneEncoder", store: "SceneStore", split: str, params: SceneProbeParams) -> "Iterator[_Features]":
    """Yield the scenes of a split, one at a time, with a feature for every point of the original scan."""
    import torch
    from tqdm import tqdm

    from pointloom.data.scene_batches import SceneLoader, SceneSampling, scene_points
    from pointloom.ops.superpoints import superpoints
    from pointloom.tasks.scene_probing import PointFeatures
    from pointloom.train.device import best_device

    device, rows = best_device(), store.rows(split)
    loader = SceneLoader(store, rows, sampling=SceneSampling(module.voxel_size), batch_size=1, seed=0)
    pairs = zip(rows.tolist(), loader.draw(0), strict=True)
    for row, batch in tqdm(pairs, total=len(rows), desc=f"features, {split}", unit="scene"):
        scene = store.scene(row)
        points = scene_points(scene)
        coord = torch.from_numpy(points.coord).to(device)
        offset = torch.tensor([len(coord)], device=device)
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=params.precision == "bf16"),
        ):
            feature = module.spread(module(batch.to(device)), coord, offset).float().cpu().numpy()
        number = scene.superpoint
        if number is None:
            number = superpoints(points.coord, points.normal, points.color)
        yield _Features(scene, PointFeatures(feature, points.segment, number))


def _learnable(features: _Features, params: SceneProbeParams, *, seed: int) -> _Kept:
    """Keep what the heads learn from: super-points, some of the labelled points, boxes."""
    import numpy as np
    import torch

    from pointloom.tasks.instance_segmentation import PointTargets, instance_targets
    from pointloom.tasks.scene_probing import PointFeatures, superpoint_labels, superpoint_means

    scene, points = features.scene, features.points
    known = np.flatnonzero(points.label >= 0)
    rng = np.random.default_rng([seed, len(known)])
    chosen = np.sort(rng.permutation(known)[: params.points_per_scene])
    shift, has_shift = instance_targets(scene.coord, scene.instance)
    label = superpoint_labels(points, num_classes=int(points.label.max(initial=0)) + 1)
    return _Kept(
        superpoints=PointFeatures(superpoint_means(points), label, np.arange(len(label))),
        targets=PointTargets(
            feature=torch.from_numpy(points.feature[chosen]),
            segment=torch.from_numpy(points.label[chosen].astype(np.int64)),
            shift=torch.from_numpy(shift[chosen]),
            has_shift=torch.from_numpy(has_shift[chosen]),
        ),
        boxes=boxes_of_scene(scene, points.feature) if params.grounding else None,
    )


@dataclass(frozen=True)
class _Heads:
    """What has been learned from the training scenes; None where a protocol is left out."""

    linear: "LinearProbe | None"
    nearest: "NearestProbe | None"
    instances: "InstanceHeads | None"


def _fit(params: SceneProbeParams, store: "SceneStore", train: list[_Kept], *, seed: int) -> _Heads:
    import numpy as np
    import torch

    from pointloom.errors import DataError
    from pointloom.tasks.instance_segmentation import PointTargets, fit_instance_heads
    from pointloom.tasks.scene_probing import PointFeatures, fit_linear_probe, gather_superpoints

    num_classes = len(store.info.classes)
    joined = {key: torch.cat([getattr(each.targets, key) for each in train]) for key in vars(train[0].targets)}
    feature, label = joined["feature"].numpy(), joined["segment"].numpy()
    try:
        linear = params.linear and fit_linear_probe(
            PointFeatures(feature, label, np.zeros_like(label)), num_classes=num_classes,
            epochs=params.linear.epochs, lr=params.linear.lr, seed=seed,
        )  # fmt: skip
        nearest = params.nearest and gather_superpoints((each.superpoints for each in train), num_classes=num_classes)
    except ValueError as error:
        raise DataError(f"{store.path}: {error}; probing needs labelled training scenes") from error
    instances = params.instances and fit_instance_heads(
        PointTargets(**joined), num_classes=num_classes, epochs=params.instances.epochs, lr=params.instances.lr,
        seed=seed,
    )  # fmt: skip
    return _Heads(linear or None, nearest or None, instances or None)


def _test(
    params: SceneProbeParams, store: "SceneStore", module: "SceneEncoder", train: list[_Kept], *, seed: int
) -> "tuple[list[dict[str, Any]], Arrays]":
    """Fit the heads, test them scene by scene; return a record per protocol and a few scenes to look at."""
    import numpy as np

    classes, started = store.info.classes, time.perf_counter()
    heads = _fit(params, store, train, seed=seed)
    counts: dict[str, list[NDArray[np.int64]]] = {name: [] for name in ("linear", "nearest") if getattr(heads, name)}
    scored: list[Scored] = []
    shown: list[Arrays] = []
    boxes: list[BoxesOfScene | None] = []
    for each in _encode(module, store, "test", params):
        label, predictions = each.points.label, _classify(params, heads, each.points)
        for name, prediction in predictions.items():
            cells = label[label >= 0] * len(classes) + prediction[label >= 0]
            counts[name].append(np.bincount(cells, minlength=len(classes) ** 2).reshape(len(classes), -1))
        if heads.instances and params.instances:
            scored.append(_find_instances(params.instances, heads.instances, each, classes))
        if params.grounding:
            boxes.append(boxes_of_scene(each.scene, each.points.feature))
        if predictions and len(shown) < NUM_SHOWN:
            shown.append(_to_show(each.scene, next(iter(predictions.values()))))
    records = [_semantic_record(name, np.stack(count), classes) for name, count in counts.items()]
    if params.instances:
        records.append(_instance_record(params.instances, scored, classes))
    asked = [[box for box in found if box] for found in ([each.boxes for each in train], boxes)]
    if params.grounding and all(asked):
        records.append(grounding_record(params.grounding, *asked, seed=seed))
    spent = {"wall_s": time.perf_counter() - started}
    return [record | spent for record in records], _join(shown)


def _classify(params: SceneProbeParams, heads: _Heads, points: "PointFeatures") -> "dict[str, NDArray[np.int64]]":
    found = {}
    if heads.linear:
        found["linear"] = heads.linear.classify(points.feature)
    if heads.nearest and params.nearest:
        found["nearest"] = heads.nearest.classify(points, metric=params.nearest)
    return found


def _semantic_record(protocol: str, counts: "NDArray[np.int64]", classes: tuple[str, ...]) -> dict[str, Any]:
    import numpy as np

    from pointloom.tasks.semantic_segmentation import semantic_scores

    scores = semantic_scores(counts.sum(axis=0))
    iou = {name: None if np.isnan(value) else float(value) for name, value in zip(classes, scores.iou, strict=True)}
    scored = {"miou": scores.miou, "macc": scores.macc, "oa": scores.oa}
    return {"protocol": protocol, **scored, "classes": iou, "confusion": counts}


def _find_instances(
    params: InstanceParams, heads: "InstanceHeads", features: _Features, classes: tuple[str, ...]
) -> "Scored":
    import numpy as np
    import torch

    from pointloom.tasks.instance_segmentation import Scored, group_points_by_shift, true_instances

    scene = features.scene
    with torch.inference_mode():
        logits, shift = heads.predict(torch.from_numpy(features.points.feature))
    ignored = [classes.index(name) for name in params.ignored]
    predicted = group_points_by_shift(
        scene.coord, shift.numpy(), logits.softmax(1).numpy(), ignored=ignored, radius=params.radius,
        smallest=params.smallest,
    )  # fmt: skip
    void = (scene.segment < 0) | np.isin(scene.segment, ignored)
    return Scored(predicted, true_instances(scene.segment, scene.instance), void)


def _instance_record(params: InstanceParams, scored: "list[Scored]", classes: tuple[str, ...]) -> dict[str, Any]:
    import numpy as np

    from pointloom.tasks.instance_segmentation import THRESHOLDS, average_precision

    places = [place for place, name in enumerate(classes) if name not in params.ignored]
    by_threshold = {
        threshold: 100 * average_precision(scored, classes=places, threshold=threshold, min_points=params.smallest)
        for threshold in (0.25, *THRESHOLDS)
    }
    present = ~np.isnan(by_threshold[0.5])

    def mean(values: "NDArray[np.float64]") -> float:
        return float(values[present].mean()) if present.any() else 0.0

    return {
        "protocol": "instances",
        "ap": float(np.mean([mean(by_threshold[threshold]) for threshold in THRESHOLDS])),
        "ap50": mean(by_threshold[0.5]),
        "ap25": mean(by_threshold[0.25]),
        "classes": {
            classes[place]: float(value)
            for place, value in zip(places, by_threshold[0.5], strict=True)
            if not np.isnan(value)
        },
    }


def _to_show(scene: "Scene", prediction: "NDArray[np.int64]") -> "Arrays":
    import numpy as np

    color = np.full(scene.coord.shape, 160, dtype=np.uint8) if scene.color is None else scene.color
    return {
        "name": np.array([scene.name]),
        "coord": scene.coord,
        "color": color,
        "label": scene.segment.astype(np.int16),
        "prediction": prediction.astype(np.int16),
    }


def _join(shown: "list[Arrays]") -> "Arrays":
    import numpy as np

    if not shown:
        return {}
    offset = np.cumsum([len(each["coord"]) for each in shown])
    return {key: np.concatenate([each[key] for each in shown]) for key in shown[0]} | {"offset": offset}

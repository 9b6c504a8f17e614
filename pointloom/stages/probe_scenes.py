"""Stage ``probe`` on scenes: how much the frozen features of a scene encoder tell."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from pointloom.stages.params import GrowingParams, HeadParams
from pointloom.stages.probe_grounding import (
    BoxesOfScene,
    GroundingParams,
    SentenceReader,
    boxes_of_scene,
    grounding_record,
)
from pointloom.stages.probe_instances import InstanceParams, find_instances, instance_record
from pointloom.stages.probe_learnable import Learnable, SceneFeatures, learnable
from pointloom.stages.scene_training import scene_header, skipped_without_classes, tuned_scene_encoder
from pointloom.stages.training import summarise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.data.scene_store import SceneStore
    from pointloom.data.scenes import Scene
    from pointloom.stages.runs import StageRun
    from pointloom.structures import SceneEncoder
    from pointloom.tasks.instance_segmentation import InstanceHeads, Scored
    from pointloom.tasks.scene_probing import LinearProbe, NearestProbe, PointFeatures
    from pointloom.train.checkpoint import EncoderCard

    Arrays = dict[str, NDArray[np.generic]]

NUM_SHOWN = 2


class SceneProbeParams(GrowingParams):
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
    levels: list[int] | None = Field(
        default=None, min_length=1, description="resolutions whose features are probed, 1 = finest; null: all of them"
    )
    labelled_points: int | None = Field(
        default=None,
        ge=1,
        description="labelled points per training scene, drawn by seed; null: all that the store has (its official "
        "lists where it was prepared with them)",
    )

    @model_validator(mode="after")
    def _boxes_are_labels(self) -> "SceneProbeParams":
        if self.labelled_points is not None and self.grounding is not None:
            raise ValueError("labelled_points: boxes and sentences are labels of whole objects; grounding must be null")
        return self


def run_scene_probe(params: SceneProbeParams, *, dataset: Path, encoder: Path, result: Path, run: "StageRun") -> None:
    """Classify points by the frozen features of an encoder.

    Raises:
        DataError: There are no labelled training scenes or no test scenes.
        ParamsError: A class without instances is unknown.
        CheckpointError: The model that reads sentences is not there.
    """
    import numpy as np

    from pointloom.data.replace import replaced_folder
    from pointloom.data.scene_store import SceneStore
    from pointloom.stages.runs import write_json
    from pointloom.train.checkpoint import read_card

    store, card = SceneStore(dataset), read_card(encoder)
    header = _header(params, store, card, name=result.name)
    if skipped_without_classes(store, result, header):
        return
    _check(params, store)
    reader = SentenceReader(params.grounding) if params.grounding else None
    runs: list[dict[str, Any]] = []
    confusions: list[NDArray[np.int64] | None] = []
    shown: Arrays = {}
    with replaced_folder(result) as folder:
        for seeds in [[seed] for seed in params.seeds] if card.method == "untrained" else [params.seeds]:
            module = _build(encoder, seeds[0])
            for trial in _trials(params, store, module, seeds, reader):
                found = trial.records(store.info.classes)
                confusions += [record.pop("confusion", None) for record in found]
                runs += [{**record, "seed": trial.seed, "fraction": trial.fraction} for record in found]
                shown = shown or _join(trial.shown)
        write_json(folder / "result.json", header | {"runs": runs})
        if shown:
            np.savez_compressed(folder / "scenes.npz", **shown)  # type: ignore[arg-type]
            none = np.zeros_like(next(counts for counts in confusions if counts is not None))
            kept = np.stack([none if counts is None else counts for counts in confusions])
            np.savez_compressed(folder / "predictions.npz", confusion=kept)
    whole = max(params.fractions)
    for protocol in dict.fromkeys(record["protocol"] for record in runs):
        records = [record for record in runs if record["protocol"] == protocol and record["fraction"] == whole]
        metric = {"instances": "ap50", "grounding": "overall"}.get(protocol, "miou")
        run.summary(summarise(records, (metric,), prefix=f"{protocol}/"))


def _header(params: SceneProbeParams, store: "SceneStore", card: "EncoderCard", *, name: str) -> dict[str, Any]:
    chosen = {"linear", "nearest", "instances", "grounding", "points_per_scene", "levels", "labelled_points"}
    protocol = params.model_dump(mode="json", include=chosen) | {
        "test": "every point of every test scene",
        "seed_covers": SceneProbeParams.model_fields["seeds"].description,
    }
    return scene_header("probe", "scene_probe", name=name, card=card, store=store, protocol=protocol)


def _check(params: SceneProbeParams, store: "SceneStore") -> None:
    from pointloom.errors import DataError, ParamsError

    for split in ("train", "test"):
        if not len(store.rows(split)):
            raise DataError(f"{store.path}: there is no {split} scene to probe with")
        if params.grounding and not any(store.sentences[row] for row in store.rows(split).tolist()):
            raise DataError(
                f"{store.path}: there are no sentences about its {split} scenes; prepare with prepare.scenes.sentences "
                "(ScanRefer), or set grounding: null"
            )
    if params.instances and (unknown := set(params.instances.ignored) - set(store.info.classes)):
        raise ParamsError(
            f"probe.instances.ignored: unknown classes {sorted(unknown)}; known: {', '.join(store.info.classes)}"
        )


def _build(folder: Path, seed: int) -> "SceneEncoder":
    import torch

    from pointloom.structures import as_module
    from pointloom.train.device import best_device

    torch.manual_seed(seed)
    module = tuned_scene_encoder(folder, {})
    as_module(module).to(best_device()).eval()
    return module


def _encode(
    module: "SceneEncoder", store: "SceneStore", split: str, params: SceneProbeParams
) -> "Iterator[SceneFeatures]":
    """Yield the scenes of a split, one at a time, with a feature for every point of the original scan."""
    import numpy as np
    import torch
    from tqdm import tqdm

    from pointloom.data.scene_batches import SceneLoader, SceneSampling, scene_points
    from pointloom.ops.normals import estimate_normals
    from pointloom.ops.superpoints import superpoints
    from pointloom.tasks.scene_probing import PointFeatures
    from pointloom.train.device import best_device

    device, rows, columns = best_device(), store.rows(split), _columns(module.dims, params.levels)
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
            feature = module.spread(module(batch.to(device)), coord, offset)[:, columns].float().cpu().numpy()
        number = scene.superpoint
        if number is None:
            known = scene.normal is not None
            normal = points.normal if known else estimate_normals(torch.from_numpy(points.coord)).numpy()
            number = superpoints(points.coord, normal, points.color)
        dense = np.unique(number, return_inverse=True)[1]  # a scan's own numbers have large gaps
        yield SceneFeatures(scene, PointFeatures(feature, points.segment, dense))


def _columns(dims: "Sequence[int]", levels: list[int] | None) -> list[int]:
    """Return which channels of all resolutions, joined finest first, are those of some resolutions."""
    from pointloom.errors import ParamsError

    if unknown := set(levels or ()) - set(range(1, len(dims) + 1)):
        raise ParamsError(f"probe.levels: the encoder has resolutions 1 to {len(dims)}, got {sorted(unknown)}")
    ends = list(itertools.accumulate(dims))
    chosen = sorted(set(levels)) if levels else range(1, len(dims) + 1)
    return [column for level in chosen for column in range(ends[level - 1] - dims[level - 1], ends[level - 1])]


@dataclass(frozen=True)
class _Heads:
    """What has been learned from the training scenes; None where a protocol is left out."""

    linear: "LinearProbe | None"
    nearest: "NearestProbe | None"
    instances: "InstanceHeads | None"


def _fit(params: SceneProbeParams, store: "SceneStore", train: list[Learnable], *, seed: int) -> _Heads:
    import numpy as np
    import torch

    from pointloom.errors import DataError
    from pointloom.tasks.instance_segmentation import PointTargets, fit_instance_heads
    from pointloom.tasks.scene_probing import PointFeatures, fit_linear_probe, join_superpoints

    num_classes = len(store.info.classes)
    joined = {key: torch.cat([getattr(each.targets, key) for each in train]) for key in vars(train[0].targets)}
    feature, label = joined["feature"].numpy(), joined["segment"].numpy()
    if not len(label):
        raise DataError(f"{store.path}: no training point has a label; probing needs labelled training scenes")
    linear = params.linear and fit_linear_probe(
        PointFeatures(feature, label, np.zeros_like(label)), num_classes=num_classes,
        epochs=params.linear.epochs, lr=params.linear.lr, seed=seed,
    )  # fmt: skip
    nearest = params.nearest and join_superpoints([each.superpoints for each in train])
    instances = params.instances and fit_instance_heads(
        PointTargets(**joined), num_classes=num_classes, epochs=params.instances.epochs, lr=params.instances.lr,
        seed=seed,
    )  # fmt: skip
    return _Heads(linear or None, nearest or None, instances or None)


@dataclass
class _Trial:
    """One seed and share of the labelled scenes: heads, and what they did on the test scenes so far."""

    params: SceneProbeParams
    seed: int
    fraction: float
    heads: _Heads
    train_boxes: list[BoxesOfScene | None]
    reader: SentenceReader | None
    counts: "dict[str, list[NDArray[np.int64]]]" = field(default_factory=dict)
    scored: "list[Scored]" = field(default_factory=list)
    test_boxes: list[BoxesOfScene | None] = field(default_factory=list)
    shown: "list[Arrays]" = field(default_factory=list)

    def look(self, each: SceneFeatures, boxes: BoxesOfScene | None, classes: tuple[str, ...]) -> None:
        """Test the heads on one scene."""
        from pointloom.tasks.scene_segmentation import count_confusion

        predictions = _classify(self.params, self.heads, each.points)
        for name, prediction in predictions.items():
            matrix = count_confusion(each.points.label, prediction, len(classes))
            self.counts.setdefault(name, []).append(matrix)
        if self.heads.instances and self.params.instances:
            self.scored.append(
                find_instances(self.params.instances, self.heads.instances, each.scene, each.points.feature, classes)
            )
        self.test_boxes.append(boxes)
        if predictions and len(self.shown) < NUM_SHOWN:
            self.shown.append(_to_show(each.scene, next(iter(predictions.values()))))

    def records(self, classes: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return the scores of every protocol."""
        import numpy as np

        found = [_semantic_record(name, np.stack(count), classes) for name, count in self.counts.items()]
        if self.params.instances:
            found.append(instance_record(self.params.instances, self.scored, classes))
        asked = [[box for box in boxes if box] for boxes in (self.train_boxes, self.test_boxes)]
        if self.params.grounding and self.reader and all(asked):
            found.append(grounding_record(self.params.grounding, self.reader, *asked, seed=self.seed))
        return found


def _trials(
    params: SceneProbeParams,
    store: "SceneStore",
    module: "SceneEncoder",
    seeds: list[int],
    reader: SentenceReader | None,
) -> list[_Trial]:
    """Fit heads for every seed and share, then test all of them, scene by scene; every scene is encoded once."""
    import numpy as np

    kept = [learnable(each, params, seeds, store.info.classes) for each in _encode(module, store, "train", params)]
    trials = []
    for place, seed in enumerate(seeds):
        order = np.random.default_rng(seed).permutation(len(kept))
        for fraction in params.fractions:
            chosen = [kept[i][place] for i in order[: max(1, round(fraction * len(kept)))]]
            heads = _fit(params, store, chosen, seed=seed)
            trials.append(_Trial(params, seed, fraction, heads, [each.boxes for each in chosen], reader))
    for each in _encode(module, store, "test", params):
        boxes = boxes_of_scene(each.scene, each.points.feature) if params.grounding else None
        for trial in trials:
            trial.look(each, boxes, store.info.classes)
    return trials


def _classify(params: SceneProbeParams, heads: _Heads, points: "PointFeatures") -> "dict[str, NDArray[np.int64]]":
    found = {}
    if heads.linear:
        found["linear"] = heads.linear.classify(points.feature)
    if heads.nearest and params.nearest:
        found["nearest"] = heads.nearest.classify(points, metric=params.nearest)
    return found


def _semantic_record(protocol: str, counts: "NDArray[np.int64]", classes: tuple[str, ...]) -> dict[str, Any]:
    import numpy as np

    from pointloom.tasks.scene_segmentation import scene_scores

    scores = scene_scores(counts.sum(axis=0))
    iou = {name: None if np.isnan(value) else float(value) for name, value in zip(classes, scores.iou, strict=True)}
    scored = {"miou": scores.miou, "miou_present": scores.miou_present, "macc": scores.macc, "oa": scores.oa}
    return {"protocol": protocol, **scored, "classes": iou, "confusion": counts}


def _to_show(scene: "Scene", prediction: "NDArray[np.int64]") -> "Arrays":
    import numpy as np

    from pointloom.data.materials import NEUTRAL

    color = np.full(scene.coord.shape, NEUTRAL, dtype=np.uint8) if scene.color is None else scene.color
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

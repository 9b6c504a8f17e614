"""Published values of tasks on scenes beside ours, and what differs between the protocols."""

import re
from dataclasses import asdict
from typing import Any

from pointloom.report.inputs import SceneInputs
from pointloom.report.published import TITLES, Published, find_published
from pointloom.report.scene_tables import END_TO_END

Row = dict[str, Any]

PUBLISHED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "scene_segmentation": ("scene_segmentation", "full", ("miou", "macc")),
    "detection": ("detection", "full", ("ap25", "ap50")),
    "linear": ("scene_segmentation", "linear", ("miou",)),
    "nearest": ("scene_segmentation", "nearest", ("miou",)),
    "instances": ("instance_segmentation", "linear", ("ap50",)),
    "grounding": ("grounding", "frozen", ("overall", "unique", "multiple")),
}
"""Protocol of our tables -> task and transfer as in ``published.csv``, and the published metrics."""

FULL_SCENES = {"scannet": 1513, "s3dis": 271, "sunrgbd": 10335}
"""Labelled scenes of the whole data sets: training and validation."""

LAYOUTS = ("scannet_votenet", "pointcept")
"""Sources that may hold ScanNet; Pointcept's layout is also that of other scenes."""

DETECTORS = {"votenet": "VoteNet", "h3dnet": "H3DNet", "3detr": "3DETR", "3detr_m": "3DETR-m"}
"""Detector as in the parameters -> in the names of published methods."""

DETECTED = 18
"""Classes of the published detectors on ScanNet."""


def scene_published_rows(inputs: SceneInputs, rows: list[Row]) -> list[Row]:
    """Return our results with all labels and features on a standard data set, each with the published values.

    Args:
        inputs: For the data set's name and the protocols.
        rows: Rows of the tables.
    """
    info = inputs.store.info
    dataset, variant = _benchmark(inputs)
    if {"labelled_points", "labelled_scenes"} & (info.settings.get("scenes") or {}).keys():
        return []
    found = []
    for row in rows:
        task, transfer, metrics = PUBLISHED[row["protocol"]]
        protocol = _protocol(inputs, row)
        if protocol.get("labelled_points") or protocol.get("levels"):
            continue
        if row["protocol"] == "detection" and protocol.get("freeze_encoder"):
            transfer = "frozen"
        for metric in metrics:
            ours = row["values"].get(metric)
            published = find_published(dataset=dataset, variant=variant, task=task, transfer=transfer, metric=metric)
            if row["fraction"] != 1 or ours is None or not published:
                continue
            found.append(
                {
                    "name": row["name"],
                    "benchmark": f"{info.source} {variant}".strip(),
                    "task": task,
                    "transfer": transfer,
                    "metric": TITLES[metric],
                    "ours": ours,
                    "published": [asdict(p) | {"differs": _differences(inputs, row, p)} for p in published],
                }
            )
    return found


def _benchmark(inputs: SceneInputs) -> tuple[str, str]:
    """Return data set and variant as in ``published.csv``: ScanNet's scans in the layouts of others are ScanNet."""
    info = inputs.store.info
    variant = str(info.settings.get("variant") or "")
    if info.source in LAYOUTS and all(re.fullmatch(r"scene\d{4}_\d{2}", name) for name in inputs.store.names):
        return "scannet", variant.replace("scannet", "classes")
    return info.source, variant


def _protocol(inputs: SceneInputs, row: Row) -> Row:
    results = inputs.finetune if row["protocol"] in END_TO_END else inputs.probe
    return results[row["name"]].protocol if row["name"] in results else {}


def _differences(inputs: SceneInputs, row: Row, published: Published) -> list[str]:
    """Say in words what differs: frozen encoder, evaluation, boxes, number of scenes, runs."""
    info = inputs.store.info
    protocol = _protocol(inputs, row)
    found = []
    if protocol.get("freeze_encoder") and published.transfer == "full":
        found.append("encoder: frozen here, fine-tuned published")
    if (own := DETECTORS.get(str(protocol.get("detector")))) and not re.search(rf"{own}\b(?!-m)", published.method):
        found.append(f"detector: {own} here")
    if protocol.get("protocol") == "in_training":
        found.append("evaluation: one point per voxel here, all points in fragments published")
    if protocol.get("tta", "none") != "none":
        found.append("evaluation: summed over turned, scaled and mirrored copies here")
    if published.dataset == "scannet" and row["protocol"] in ("detection", "grounding") and not info.aligned:
        found.append("boxes: of scans that are not aligned with the walls here")
    if published.dataset == "scannet" and row["protocol"] == "detection" and len(info.box_classes) != DETECTED:
        found.append(f"boxes: {len(info.box_classes)} classes here, {DETECTED} published")
    if info.source == "scannet_votenet" and row["protocol"] != "detection":
        found.append("data: VoteNet's export here, which leaves points of large scans out")
    if info.counts["scenes"] < FULL_SCENES.get(published.dataset, 0):
        found.append(f"data: {info.counts['scenes']} scenes here")
    if not published.seeds.startswith(str(row["seeds"])):
        found.append(f"runs: mean of {row['seeds']} here, {published.seeds} published")
    return found

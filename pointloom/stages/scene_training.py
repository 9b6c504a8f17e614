"""What the stages share where they work on scenes: from validated parameters to the objects of the lower floors."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from pointloom.stages.params import EncoderArgs, SceneSamplingParams
from pointloom.stages.training import encoder_entry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.data.scene_batches import SceneSampling
    from pointloom.data.scene_store import SceneStore
    from pointloom.structures import SceneEncoder
    from pointloom.train.checkpoint import EncoderCard

logger = logging.getLogger(__name__)

Kind = Literal["objects", "scenes"]


def _in_range(value: dict[float, int]) -> dict[float, int]:
    if not all(0 < share <= 1 and epochs >= 1 for share, epochs in value.items()):
        raise ValueError(f"label_epochs maps shares in (0, 1] to at least one epoch, got {value}")
    return value


LabelEpochs = Annotated[
    dict[float, int],
    Field(
        min_length=1, description="share of the training scenes that is labelled -> epochs; smaller shares are subsets"
    ),
    AfterValidator(_in_range),
]
"""Parameter of tasks that learn from few labelled scenes."""


def labelled_scenes(rows: "NDArray[np.int64]", *, fraction: float, seed: int) -> "NDArray[np.int64]":
    """Draw a share of the scenes, at least one; of one seed, smaller shares are subsets of larger ones."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(rows))
    return np.sort(rows[order[: max(1, round(fraction * len(rows)))]])


def store_kind(dataset: Path) -> Kind:
    """Return what a prepared store holds.

    Raises:
        DataError: There is no prepared store, or its description is damaged.
    """
    import json

    from pointloom.errors import DataError

    file = dataset / "dataset.json"
    if not file.is_file():
        raise DataError(f"{dataset}: no prepared store here; run `pointloom prepare` first")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: damaged ({error}); run `pointloom prepare` again") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: damaged (it does not describe a store); run `pointloom prepare` again")
    return "scenes" if content.get("kind") == "scenes" else "objects"


def as_scene_sampling(params: SceneSamplingParams, *, prefer_labelled: bool = False) -> "SceneSampling":
    """Return the loader's description of sampling and augmentation."""
    from pointloom.data.scene_batches import SceneSampling
    from pointloom.data.scene_transforms import AUGMENTATIONS

    return SceneSampling(
        voxel_size=params.voxel_size,
        max_points=params.max_points,
        block=params.block,
        augmentation=AUGMENTATIONS[params.augmentation],
        prefer_labelled=prefer_labelled,
    )


def check_lone_scene(
    encoder: "SceneEncoder",
    store: "SceneStore",
    rows: "NDArray[np.int64]",
    sampling: SceneSamplingParams,
    *,
    batch_size: int,
    where: str,
    share: float = 1.0,
) -> None:
    """Check that a scene that is a training batch of its own is large enough; two scenes always are.

    Args:
        encoder: What is trained.
        store: Where the scenes are.
        rows: Training scenes; the one with the fewest points is looked at.
        sampling: What is taken of them.
        batch_size: Scenes in a batch.
        where: Stage, for the message.
        share: Smallest part of a scene's points that the encoder sees.

    Raises:
        DataError: The scene has too few points for the statistics of the encoder's coarsest level.
    """
    from pointloom.data.scene_batches import SceneLoader
    from pointloom.errors import DataError
    from pointloom.models.point_transformer import PointTransformer

    if batch_size > 1 or not isinstance(encoder, PointTransformer):
        return
    row = rows[store.num_points[rows].argmin()]
    whole = SceneLoader(store, row[None], sampling=as_scene_sampling(sampling), batch_size=1, seed=0)
    voxels = len(next(whole.draw(0)).coord)
    points = int(share * min(voxels, sampling.max_points or voxels))
    if points < encoder.least_points:
        raise DataError(
            f"{where}: a training batch is a single scene, and the encoder sees {points} voxels of {store.names[row]}; "
            f"Point Transformer needs {encoder.least_points} for two places at its coarsest level: take voxels smaller "
            f"than {sampling.voxel_size:g} m, or more scenes in a batch"
        )


def tuned_scene_encoder(folder: Path, encoder_args: EncoderArgs) -> "SceneEncoder":
    """Load the pre-trained weights, or draw fresh ones from the current seed where the encoder has none."""
    from pointloom.models import build_scene_encoder
    from pointloom.train.checkpoint import load_scene_encoder_module, read_card

    card = read_card(folder)
    if card.method == "untrained":
        return build_scene_encoder(card.builder, **(card.builder_args | encoder_args))
    return load_scene_encoder_module(folder, **encoder_args)[0]


def skipped_without_classes(store: "SceneStore", result: Path, header: dict[str, Any]) -> bool:
    """Write a result without runs where the scenes have none of the labels that a task needs; tell whether that is so.

    Plain scans have no classes at all, SUN RGB-D has those of boxes alone.
    """
    if store.info.classes or (store.info.box_classes and header["task"] == "detection"):
        return False
    from pointloom.data.replace import replaced_folder
    from pointloom.stages.runs import write_json

    with replaced_folder(result) as folder:
        write_json(folder / "result.json", header | {"runs": []})
    logger.warning("%s has no classes: this stage needs labels and was skipped", store.path)
    return True


def scene_header(
    stage: str, task: str, *, name: str, card: "EncoderCard", store: "SceneStore", protocol: dict[str, Any]
) -> dict[str, Any]:
    """Return what the result of a stage on scenes says about itself, in front of its runs."""
    classes = store.info.box_classes if task == "detection" else store.info.classes
    return {
        "format": 1,
        "stage": stage,
        "name": name,
        "task": task,
        "encoder": encoder_entry(card),
        "data": {
            "digest": store.info.digest,
            "num_train": len(store.rows("train")),
            "num_test": len(store.rows("test")),
            "classes": list(classes),
        },
        "protocol": protocol,
    }

"""Stage ``embed``: captions and views through frozen teachers, once, before any encoder learns from them."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from pointloom.stages.artifacts import CaptionsIn, DatasetIn, FeaturesOut, MetricsOut, StateDir, ViewsIn
from pointloom.stages.fan_out import Shard
from pointloom.stages.params import StageParams

if TYPE_CHECKING:
    from pointloom.data.feature_files import FeaturesInfo
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.embed_texts import TextPass
    from pointloom.stages.embed_views import ViewPasses

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16"]


class TextParams(StageParams):
    """What all text teachers share."""

    name: str = Field(pattern="^[a-z0-9_]+$", description="name in the features")
    num_captions: int = Field(ge=1, description="captions per object, best first")
    class_names: Literal["clean", "raw"] = Field(
        description="clean: class names with blanks for underscores; raw: as in the store"
    )


class BagOfWordsParams(TextParams):
    """The embedded text teacher: every word a fixed random direction."""

    teacher: Literal["bag_of_words"] = Field(description="text teacher; clip has further parameters")
    dim: int = Field(ge=8, description="width of the word vectors")
    idf_power: float = Field(
        ge=0, description="exponent of the inverse document frequency; 0: all words weigh the same"
    )


class ClipTextParams(TextParams):
    """The text tower of a CLIP model."""

    teacher: Literal["clip"] = Field(description="text teacher; bag_of_words has other parameters")
    weights: str = Field(description="file or folder below the folder of models (POINTLOOM_MODELS)")
    architecture: str | None = Field(description="open_clip's name of the model; null for a folder, which says it")
    quick_gelu: bool | None = Field(description="activation of OpenAI's models; null: as folder, archive or name say")
    prompts: Literal["averaged_64", "photo", "point_cloud", "name"] = Field(
        description="sentences around class names, averaged"
    )


class DescriptorParams(StageParams):
    """An embedded image teacher: hand-crafted descriptors; ``shape`` looks at depth, ``look`` at colour."""

    name: str = Field(pattern="^[a-z0-9_]+$", description="name in the features; clip_rgb and clip_depth share a head")
    teacher: Literal["shape", "look"] = Field(description="image teacher: shape | look | clip | dinov2")
    dim: int = Field(ge=8, description="principal components")
    whitening: float = Field(ge=0, le=1, description="0: components as they are, 1: all of the same variance")


class NetworkParams(StageParams):
    """The image tower of a network."""

    teacher: str
    name: str = Field(pattern="^[a-z0-9_]+$", description="name in the features")
    source: Literal["rgb", "depth"] = Field(
        description="kind of views it looks at; depth as grey pictures, near = white"
    )
    weights: str = Field(description="file or folder below the folder of models (POINTLOOM_MODELS)")


class DinoParams(NetworkParams):
    """DINOv2."""

    teacher: Literal["dinov2"] = Field(description="image teacher")


class ClipImageParams(NetworkParams):
    """The image tower of a CLIP model."""

    teacher: Literal["clip"] = Field(description="image teacher")
    architecture: str | None = Field(description="open_clip's name of the model; null for a folder, which says it")
    quick_gelu: bool | None = Field(description="activation of OpenAI's models; null: as folder, archive or name say")


ImageParams = Annotated[DescriptorParams | DinoParams | ClipImageParams, Field(discriminator="teacher")]


class EmbedParams(StageParams):
    """Which teachers look at which views and captions."""

    views: str = Field(description="entry of params.yaml:render to look at")
    captions: str = Field(description="entry of params.yaml:caption to read")
    text: Annotated[BagOfWordsParams | ClipTextParams, Field(discriminator="teacher")] | None = Field(
        description="text teacher; null: captions are not used"
    )
    images: list[ImageParams] = Field(description="image teachers; may be empty")
    batch_size: int = Field(ge=1, description="views or texts per forward pass of a network")
    precision: Precision = Field(description="of networks: fp32, or autocast to bf16 or fp16")

    @model_validator(mode="after")
    def _named(self) -> "EmbedParams":
        names = [teacher.name for teacher in (*self.images, *([self.text] if self.text else []))]
        if not names:
            raise ValueError("there is no teacher: give text, or at least one of images")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"teachers need different names, {', '.join(twice)} occurs twice")
        return self


def embed(
    params: EmbedParams,
    *,
    dataset: DatasetIn,
    views: ViewsIn,
    captions: CaptionsIn,
    features: FeaturesOut,
    metrics: MetricsOut,
    state: StateDir,
    shard: Shard | None = None,
) -> None:
    """Run captions and views of every object through frozen teachers and keep their features.

    Raises:
        BackendError: A library that a teacher needs is not installed.
        CheckpointError: A teacher has no weights, or they do not fit.
        DataError: Views or captions belong to another store.
        WorkspaceError: Another run is embedding the same views and captions.
    """
    from pointloom.stages.runs import stage_run

    inputs = {"dataset": dataset, "views": views, "captions": captions}
    with stage_run(
        "embed", name=features.name, params=params, inputs=inputs, metrics=metrics, state=state, shard=shard
    ) as run:
        job = _plan(params, dataset=dataset, views=views, captions=captions)
        if shard:
            run.summary({"objects": float(_embed_shard(job, shard, state=state))})
            return
        info, truncated = _embed(job, features, state=state)
        run.set_tags({"features.digest": info.digest})
        run.summary(_headline(features, dataset) | {"truncated_texts": float(truncated)})
        run.log_artifact(features / "features.json")


@dataclass(frozen=True)
class Job:
    """Who looks at what.

    Attributes:
        store: The objects.
        text: Reads their captions, None without a text teacher.
        images: Look at their views.
        info: Description of the features, without a digest.
    """

    store: "ObjectStore"
    text: "TextPass | None"
    images: "ViewPasses"
    info: "FeaturesInfo"

    @property
    def shaped_by(self) -> dict[str, list[str]]:
        """Return everything that the features depend on."""
        return {"keys": [teacher.key for teacher in self.info.teachers]}


def _plan(params: EmbedParams, *, dataset: Path, views: Path, captions: Path) -> Job:
    """Open what is to be embedded and load the teachers."""
    from pointloom.data.captions import CaptionStore
    from pointloom.data.feature_files import FeaturesInfo
    from pointloom.data.shards import ObjectStore
    from pointloom.data.views import ViewStore
    from pointloom.stages.embed_texts import TextPass
    from pointloom.stages.embed_views import ViewPasses
    from pointloom.stages.teacher_loading import Loader
    from pointloom.train.device import best_device

    store = ObjectStore(dataset)
    view_store = ViewStore(views, dataset_digest=store.info.digest)
    caption_store = CaptionStore(captions, dataset_digest=store.info.digest)
    loader = Loader(params, best_device())
    text = TextPass(params, store, caption_store, loader) if params.text else None
    images = ViewPasses(params, store, view_store, loader)
    info = FeaturesInfo(
        teachers=(*((text.info,) if text else ()), *images.infos),
        classes=store.info.classes,
        dataset_digest=store.info.digest,
        views_digest=view_store.info.digest,
        captions_digest=caption_store.info.digest,
        category=caption_store.info.category if text else None,
        num_texts=params.text.num_captions if params.text else 0,
        num_views=view_store.valid.shape[1],
    )
    return Job(store, text, images, info)


def _embed_shard(job: Job, shard: Shard, *, state: Path) -> int:
    """Embed a part of captions and views and keep that for the whole stage; returns the number of objects."""
    from pointloom.train.state import resume_state

    with resume_state(state, stage="embed", shaped_by=job.shaped_by, shard=str(shard)) as work:
        if job.text:
            job.text.run_shard(work, shard)
        return job.images.run_shard(work, shard)


def _embed(job: Job, features: Path, *, state: Path) -> "tuple[FeaturesInfo, int]":
    """Embed everything and write it; return the description and the number of captions that were cut off."""
    from pointloom.data.feature_files import ObjectFeatures, write_features
    from pointloom.data.replace import replaced_folder
    from pointloom.train.state import resume_state

    store, text = job.store, job.text
    with resume_state(state, stage="embed", shaped_by=job.shaped_by) as work, ExitStack() as stack:
        vectors = text.run(work) if text else None
        made = _made_already(features, job)
        passes = job.images.run(work, stack, without=made)

        def objects() -> Iterator[ObjectFeatures]:
            for uid in map(str, store.uids):
                values = {one.info.name: job.images.values(uid, one) for one in passes}
                if text is None or vectors is None:
                    yield ObjectFeatures(uid, (), (), values)
                else:
                    values[text.info.name] = text.values(uid, vectors)
                    yield ObjectFeatures(uid, tuple(text.texts[uid]), text.ids(uid), values)

        class_text = {text.info.name: text.class_vectors()} if text else {}
        reopen = {text.info.name: text.reopen()} if text else {}
        folder = stack.enter_context(replaced_folder(features))
        info = write_features(folder, objects(), info=job.info, class_text=class_text, reopen=reopen, made=made)
    names = ", ".join(f"{teacher.name} ({teacher.dim})" for teacher in info.teachers)
    logger.info("embedded %d objects in %s: %s", len(store), features, names)
    return info, text.num_truncated if text else 0


def _made_already(features: Path, job: Job) -> dict[str, Path]:
    """Return image teacher -> other features beside these that have its vectors, of the same views and objects.

    Two entries often differ in their captions alone; the key of a teacher says everything that decides its numbers.
    """
    from contextlib import suppress

    from pointloom.data.feature_files import DESCRIPTION
    from pointloom.data.features import FeatureStore
    from pointloom.errors import DataError

    wanted = {teacher.name: teacher for teacher in job.images.infos}
    made: dict[str, Path] = {}
    for folder in sorted(path.parent for path in features.parent.glob(f"*/{DESCRIPTION}")):
        with suppress(DataError):
            other = FeatureStore(folder, dataset_digest=job.info.dataset_digest)
            if folder.name == features.name or other.uids.tolist() != job.store.uids.tolist():
                continue
            same = [teacher.name for teacher in other.info.teachers if wanted.get(teacher.name) == teacher]
            for name in same:
                other.norms(name)  # opens all shards
            made |= dict.fromkeys(same, folder)
    for name, folder in made.items():
        logger.info("%s: the same vectors are in %s, nothing is looked at twice", name, folder)
    return made


def _headline(features: Path, dataset: Path) -> dict[str, float]:
    """Return how much there is, how much is missing, and how many training captions are equal."""
    import numpy as np

    from pointloom.data.features import FeatureStore
    from pointloom.data.shards import ObjectStore

    store, training = FeatureStore(features), ObjectStore(dataset).splits != "test"
    numbers = {"objects": float(len(store)), "teachers": float(len(store.info.teachers))}
    for name in store.names("text"):
        text = store.text(name)
        first = text.text_id[training & text.present[:, 0], 0]
        _, count = np.unique(first, return_counts=True)
        numbers["texts"] = float(text.present.sum())
        numbers["distinct_texts"] = float(len(np.unique(text.text_id[text.present])))
        numbers["objects_without_text"] = float((~text.present.any(axis=1)).sum())
        numbers["duplicate_text_ratio"] = float(count[count > 1].sum() / max(1, len(first)))
    for name in store.names("image"):
        present = store.images(name).present
        numbers[f"{name}/views"] = float(present.sum())
        numbers[f"{name}/views_missing"] = float((~present).sum())
    return numbers

"""Stage ``align``: stage 1 of the two-stage method, clouds aligned with captions and views."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pointloom.stages.align_masked import MaskedFirstParams, MaskedTogetherParams, masked_first, masked_together
from pointloom.stages.artifacts import DatasetIn, FeaturesIn, MetricsOut, ModelOut, ResultOut, StateDir
from pointloom.stages.encoder_names import ObjectEncoderName
from pointloom.stages.enough_points import check_enough_points
from pointloom.stages.params import EncoderArgs, GrowingParams, OptimParams, SamplingParams, StageParams
from pointloom.stages.training import as_optimization, as_sampling, output_folder, trained, write_curve

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.data.aligned_text import AlignedText
    from pointloom.data.feature_files import FeatureInfo
    from pointloom.data.features import FeatureStore
    from pointloom.data.shards import ObjectStore
    from pointloom.data.triplets import ImageTeacher, TeacherVectors, TripletLoader
    from pointloom.methods.align import Align
    from pointloom.stages.alignment import Aligned
    from pointloom.stages.runs import StageRun
    from pointloom.train.checkpoint import EncoderCard


class AlignOptimParams(OptimParams):
    """AdamW with linear warm-up and a cosine down to ``min_lr``."""

    beta2: float = Field(gt=0, lt=1, description="AdamW's decay of the squared gradients")


class AlignTestParams(StageParams):
    """Classification by text and retrieval on the test objects."""

    seeds: list[int] = Field(min_length=1, description="draws of points and of the views that are asked with")
    draws: int = Field(ge=1, description="random draws of the points whose embeddings are averaged, per seed")
    resamples: int = Field(ge=100, description="bootstrap resamples behind the intervals over objects")
    confidence: float = Field(gt=0, lt=1, description="coverage of the intervals")


class AlignParams(GrowingParams):
    """Contrastive alignment with the cached features of frozen teachers."""

    features: str = Field(description="entry of params.yaml:embed to align with")
    encoder: ObjectEncoderName
    encoder_args: EncoderArgs = Field(description="arguments of the builder")
    text_teacher: str | None = Field(description="text teacher of the features; null where there is only one")
    image_teachers: list[str] | None = Field(description="image teachers of the features; null takes all")
    captions: Literal["top", "all", "names"] = Field(
        description="top: the best caption; all: a random one at every step; names: no caption but the name of the "
        "class in the prompts of the text teacher, averaged (labels tag: classes)"
    )
    held_out: list[str] | Annotated[int, Field(ge=0)] = Field(
        description="classes whose objects, and all captions with a word of their names, take no part; a number draws "
        "as many with the seed, half of all at most"
    )
    multi_positive: bool = Field(description="any object with the same sentence is a right answer")
    per_teacher_temperature: bool = Field(description="a learned temperature per teacher instead of one for all")
    splits: list[Literal["train", "pretrain"]] = Field(
        min_length=1, description="train: the training objects; pretrain: unlabelled extras"
    )
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2, description="every cloud is compared with all others of its batch")
    seed: int = Field(ge=0)
    sampling: SamplingParams
    optim: AlignOptimParams
    test: AlignTestParams
    masked: Annotated[MaskedFirstParams | MaskedTogetherParams, Field(discriminator="order")] | None = Field(
        default=None,
        description="masked modelling of the same encoder in this stage (an ablation); null: none",
    )
    shared_head: bool = Field(
        default=False, description="one projection for the text teacher and the image teachers of the same model (CLIP)"
    )
    detached_gather: bool = Field(
        default=False, description="ULIP's gather without gradient among processes; differs with several of them only"
    )


def align(
    params: AlignParams,
    *,
    dataset: DatasetIn,
    features: FeaturesIn,
    encoder: ModelOut,
    result: ResultOut,
    metrics: MetricsOut,
    state: StateDir,
) -> None:
    """Align an encoder with captions and views (stage 1), classify and retrieve by text, and index all objects."""
    from pointloom.data.features import FeatureStore
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.alignment import write_results
    from pointloom.stages.runs import stage_run

    inputs = {"dataset": dataset, "features": features}
    with stage_run("align", name=encoder.name, params=params, inputs=inputs, metrics=metrics, state=state) as run:
        store = ObjectStore(dataset)
        teachers = FeatureStore(features, dataset_digest=store.info.digest)
        with output_folder(result) as results, output_folder(encoder) as folder:
            aligned = _align(params, store, teachers, folder, state=state, run=run)
            run.summary(write_results(results, aligned, params, name=result.name, path=result))
        run.register_encoder(encoder, name=encoder.name)
        run.log_artifact(result, folder="result")


def _align(
    params: AlignParams, store: "ObjectStore", features: "FeatureStore", folder: Path, *, state: Path, run: "StageRun"
) -> "Aligned":
    """Train and write the encoder's folder."""
    from pointloom.data.aligned_text import AlignedText
    from pointloom.data.triplets import choose_teachers
    from pointloom.stages.alignment import Aligned

    held_out = held_out_classes(store, params.held_out, seed=params.seed)
    text, images = choose_teachers(features, text=params.text_teacher, images=params.image_teachers)
    loader, dropped = _training_data(params, store, features, text.name, images, held_out=held_out)
    method = _build(params, features, text, images)
    settings = params.model_dump(mode="json")
    shaped_by = {"params": settings, "data": store.info.digest, "features": features.info.digest}
    with ExitStack() as stack:
        if isinstance(params.masked, MaskedFirstParams):
            before = trained(
                masked_first(params.masked, method), loader.objects, stage="align-first", label="masked, before align",
                optimization=as_optimization(params.optim, epochs=params.masked.epochs, beta2=params.optim.beta2),
                seed=params.seed, shaped_by=shaped_by, state=state, run=run, prefix="first/", more_to_train=True,
            )  # fmt: skip
            write_curve(folder / "curves_first.csv", stack.enter_context(before))
        together = masked_together(params.masked, method) if isinstance(params.masked, MaskedTogetherParams) else None
        training = trained(
            together or method, loader, stage="align", label="align",
            optimization=as_optimization(params.optim, epochs=params.epochs, beta2=params.optim.beta2),
            seed=params.seed, shaped_by=shaped_by, state=state, run=run, on_step=method.clamp_scales,
        )  # fmt: skip
        curve = stack.enter_context(training)
        write_curve(folder / "curves.csv", curve)
        words = _words(features, loader.vectors)
        side = AlignedText(teacher=text.name, reopen=features.reopen(text.name), words=words)
        card = _save(params, method, store, features, folder, text=side)
    run.summary({"loss": curve[-1]["loss"], "epochs": params.epochs, "objects": len(loader.vectors.rows)})
    return Aligned(
        method=method, card=card, store=store, features=features, text=text, images=tuple(images),
        held_out=held_out, captions_dropped=dropped, num_aligned=len(loader.vectors.rows),
    )  # fmt: skip


def _training_data(
    params: AlignParams,
    store: "ObjectStore",
    features: "FeatureStore",
    text: str,
    images: "list[ImageTeacher]",
    *,
    held_out: list[str],
) -> "tuple[TripletLoader, int]":
    """Return the batches and the number of texts that were dropped because they name a held-out class.

    Raises:
        DataError: Features and objects differ, or a test object would be trained on.
        ParamsError: Class names are to be the texts, but no object has a class.
    """
    import numpy as np

    from pointloom.data.mentions import class_words, mentioning
    from pointloom.data.objects import ObjectLoader
    from pointloom.data.triplets import TeacherVectors, TripletLoader, described
    from pointloom.errors import DataError, ParamsError

    if not np.array_equal(features.uids, store.uids):
        raise DataError(f"{features.path}: other objects than in {store.path}; run `pointloom embed` again")
    rows = training_rows(store, splits=params.splits, held_out=held_out)
    words, class_of = class_words(held_out), None
    if params.captions == "names":
        label = store.labels[rows]
        if (label < 0).all():
            raise ParamsError(f"captions: names needs objects with a class; {store.path} has none to train on")
        present = label[:, None] >= 0
        named = mentioning([store.info.classes[i : i + 1] if i >= 0 else () for i in label], words, num=1)
        class_of = np.where(named[:, 0], -1, label)
    else:
        present = features.text(text).present[rows]
        named = mentioning([features.texts(uid) for uid in store.uids[rows]], words, num=present.shape[1])
    kept = described(features, rows, images=images, has_text=np.any(present & ~named, axis=1))
    vectors = TeacherVectors(
        features, rows[kept], text=text, images=images, usable=~named[kept], top_caption=params.captions != "all",
        class_of=None if class_of is None else class_of[kept],
    )  # fmt: skip
    objects = ObjectLoader(
        store, rows[kept], sampling=as_sampling(params.sampling), batch_size=params.batch_size, seed=params.seed
    )
    return TripletLoader(objects, vectors), int((present & named).sum())


def _words(features: "FeatureStore", vectors: "TeacherVectors") -> tuple[str, ...]:
    """Return every word of the captions, or class names, that objects may be aligned with."""
    import numpy as np

    from pointloom.data.aligned_text import all_words

    if vectors.class_of is not None:
        return all_words(features.info.classes[label] for label in np.unique(vectors.class_of) if label >= 0)
    texts = (features.texts(str(uid)) for uid in features.uids[vectors.rows])
    usable = zip(texts, vectors.text_present, strict=True)
    return all_words(captions[i] for captions, present in usable for i in np.flatnonzero(present))


def held_out_classes(store: "ObjectStore", chosen: list[str] | int, *, seed: int) -> list[str]:
    """Return the names of the classes that take no part.

    Args:
        store: Prepared objects.
        chosen: The names, or how many to draw.
        seed: Of the draw.

    Raises:
        ParamsError: A class does not exist.
    """
    from pointloom.data.mentions import draw_classes
    from pointloom.errors import ParamsError
    from pointloom.stages.read_params import did_you_mean

    known = sorted(set(store.categories.tolist()) - {""})
    if isinstance(chosen, int):
        return draw_classes(store.info.classes, chosen, seed=seed)
    for name in chosen:
        if name not in known:
            raise ParamsError(f"held_out: no class {name!r} in {store.path}{did_you_mean(name, known)}")
    return chosen


def training_rows(store: "ObjectStore", *, splits: "list[Any]", held_out: list[str]) -> "NDArray[np.int64]":
    """Return the objects to align, without those of held-out classes; never a test object.

    Raises:
        DataError: A test object is among them.
    """
    import numpy as np

    from pointloom.errors import DataError

    rows = np.concatenate([store.rows(split) for split in splits])
    rows = rows[~np.isin(store.categories[rows], held_out)]
    shared = np.intersect1d(store.uids[rows], store.uids[store.rows("test")])
    if len(shared):
        raise DataError(f"{store.path}: {len(shared)} test objects are training objects too, such as {shared[0]}")
    return rows


def _build(params: AlignParams, features: "FeatureStore", text: "FeatureInfo", images: "list[ImageTeacher]") -> "Align":
    """Build the encoder and its projections.

    Raises:
        ParamsError: The encoder has more patches than clouds have points, or no image teacher can share a projection.
    """
    import torch

    from pointloom.errors import ParamsError
    from pointloom.methods.align import Align
    from pointloom.models import build_encoder

    same = [teacher.name for teacher in images if features.teacher(teacher.entries[0]).model == text.model]
    if params.shared_head and not same:
        raise ParamsError(
            f"shared_head: no image teacher is of the model of the text teacher {text.name!r} ({text.model}); "
            "set it to false"
        )
    torch.manual_seed(params.seed)
    encoder = build_encoder(params.encoder, **params.encoder_args)
    check_enough_points(encoder, params.sampling.num_points, where="align")
    return Align(
        encoder,
        text_dim=text.dim,
        image_dims={teacher.name: teacher.dim for teacher in images},
        per_teacher_temperature=params.per_teacher_temperature,
        multi_positive=params.multi_positive,
        detached_gather=params.detached_gather,
        with_text=same if params.shared_head else (),
    )


def _save(
    params: AlignParams,
    method: "Align",
    store: "ObjectStore",
    features: "FeatureStore",
    folder: Path,
    *,
    text: "AlignedText",
) -> "EncoderCard":
    """Write the encoder, its projections and its text side; the labels tag says what kind of text has been seen."""
    from pointloom.data.aligned_text import write_aligned_text
    from pointloom.methods.align import save_heads
    from pointloom.structures import as_module
    from pointloom.train.checkpoint import save_encoder

    card = save_encoder(
        folder,
        as_module(method.encoder),
        builder=params.encoder,
        builder_args=params.encoder_args,
        method="align",
        labels="classes" if params.captions == "names" else "captions",
        num_points=params.sampling.num_points,
        data_digest=store.info.digest,
        params=params.model_dump(mode="json"),
    )
    save_heads(
        folder,
        method,
        text_teacher=text.teacher,
        encoder_sha256=card.weights_sha256,
        features_digest=features.info.digest,
    )
    write_aligned_text(folder, text)
    return card

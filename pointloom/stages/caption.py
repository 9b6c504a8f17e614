"""Stage ``caption``: sentences about every object, for the text side of alignment and for search."""

import dataclasses
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pointloom.errors import DataError
from pointloom.stages.artifacts import CaptionsOut, DatasetIn, MetricsOut, StateDir, ViewsIn
from pointloom.stages.fan_out import Shard, journal_files, label, part_of
from pointloom.stages.params import StageParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.captioners import Captioner
    from pointloom.data.captions import CaptionsInfo, CaptionStore, Described
    from pointloom.data.journal import ByteJournal
    from pointloom.data.records import Failure
    from pointloom.data.shards import ObjectStore

logger = logging.getLogger(__name__)


class OfflineCaptionParams(StageParams):
    """Sentences about measured colours and proportions; no model, no views, the same on every machine."""

    method: Literal["offline"]
    views: str = Field(description="entry of params.yaml:render; this method does not look at it")
    category: bool = Field(description="name the category; false also avoids every word of any class name")
    source: Literal["measured", "store"] = Field(
        description="store: the sentences that came with generated objects, measured ones for all others"
    )


class RankerParams(StageParams):
    """The CLIP model that scores sentences against views."""

    weights: str = Field(description="folder or file, relative to the folder of models")
    architecture: str | None = Field(description="open_clip's name for a weight file, null for a folder")
    quick_gelu: bool | None = Field(description="activation of OpenAI's weights; null: as the files say")
    precision: Literal["bf16", "fp16", "fp32"]
    batch_size: int = Field(ge=1, description="views or sentences per forward pass")


class Blip2CaptionParams(StageParams):
    """BLIP-2 (Li et al., 2023): sampled sentences per view, ranked by CLIP (ULIP-2's recipe)."""

    method: Literal["blip2"]
    views: str = Field(description="entry of params.yaml:render to describe")
    category: bool = Field(description="false replaces every word of any class name by a neutral noun")
    weights: str = Field(description="folder of the checkpoint, relative to the folder of models")
    precision: Literal["bf16", "fp16", "fp32"] = Field(description="of the weights; a CPU computes in fp32")
    prompt: str = Field(description="text that the model continues, empty for none")
    samples: int = Field(ge=1, description="sentences per view")
    num_views: int = Field(ge=1, description="views per object, spread over the valid ones")
    top_p: float = Field(gt=0, le=1, description="nucleus sampling: probability that the next word is drawn from")
    max_new_tokens: int = Field(ge=1, description="longest sentence, in tokens")
    batch_size: int = Field(ge=1, description="views per forward pass; lower it when memory runs out")
    seed: int = Field(ge=0)
    ranker: RankerParams
    max_failure_ratio: float = Field(ge=0, le=1, description="part of the objects that may end up without a caption")


CaptionParams = Annotated[OfflineCaptionParams | Blip2CaptionParams, Field(discriminator="method")]


@dataclasses.dataclass(frozen=True)
class Job:
    """Who describes what.

    Attributes:
        captioner: Describes a block of objects.
        store: The objects.
        info: Description of the captions, without a digest.
    """

    captioner: "Captioner"
    store: "ObjectStore"
    info: "CaptionsInfo"

    @property
    def blocks(self) -> "list[NDArray[np.int64]]":
        """Return the rows of all objects, in the blocks that are described together."""
        import numpy as np

        cuts = range(self.captioner.block_size, len(self.store), self.captioner.block_size)
        return np.split(np.arange(len(self.store)), cuts)


def caption(
    params: CaptionParams,
    *,
    dataset: DatasetIn,
    views: ViewsIn,
    captions: CaptionsOut,
    metrics: MetricsOut,
    state: StateDir,
    shard: Shard | None = None,
) -> None:
    """Write sentences about every object, best first.

    Raises:
        BackendError: An optional library is missing, or the GPU's memory is too small.
        CheckpointError: Weights are missing, or do not fit.
        DataError: Too many objects have no caption that is ok.
    """
    from pointloom.data.captions import CaptionStore
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.runs import stage_run

    inputs = {"dataset": dataset, "views": views}
    with stage_run(
        "caption", name=captions.name, params=params, inputs=inputs, metrics=metrics, state=state, shard=shard
    ) as run:
        store = ObjectStore(dataset)
        captioner = _build(params, store, views)
        settings = params.model_dump(mode="json", exclude={"views", "max_failure_ratio"})
        info = dataclasses.replace(captioner.info, settings=settings, dataset_digest=store.info.digest)
        job = Job(captioner, store, info)
        if shard:
            with _kept(job, state, shard) as journal:
                run.summary({"objects": float(_describe(job, journal, shard))})
            return
        _write(params, job, captions, state=state)
        made = CaptionStore(captions, dataset_digest=store.info.digest)
        run.set_tags({"captions.digest": made.info.digest})
        run.summary(_summarise(made, store))
        run.log_artifact(captions / "captions.json")
        run.log_artifact(captions / "failures.jsonl")


def _build(params: CaptionParams, store: "ObjectStore", views: Path) -> "Captioner":
    from pointloom.captioners import CAPTIONERS

    build = CAPTIONERS[params.method]
    if isinstance(params, OfflineCaptionParams):
        return build(store, category=params.category, source=params.source)
    from pointloom.captioners.blip2_model import load_blip2
    from pointloom.data.views import ViewStore
    from pointloom.teachers.clip import load_clip
    from pointloom.train.device import best_device

    device = best_device()
    return build(
        store,
        ViewStore(views, dataset_digest=store.info.digest),
        load_blip2(params.weights, device=device, precision=params.precision),
        load_clip(device=device, **params.ranker.model_dump()),
        **params.model_dump(exclude={"method", "views", "weights", "precision", "ranker", "max_failure_ratio"}),
    )


@contextmanager
def _kept(job: Job, state: Path, shard: Shard | None = None) -> "Iterator[ByteJournal]":
    """Open the journal of finished blocks; they outlive a kill."""
    from pointloom.data.journal import ByteJournal
    from pointloom.train.state import resume_state

    shaped_by = dataclasses.asdict(job.info)
    with (
        resume_state(state, stage="caption", shaped_by=shaped_by, shard=label(shard)) as resume,
        ByteJournal(*journal_files(resume, "captions", shard)) as journal,
    ):
        yield journal


def _describe(job: Job, journal: "ByteJournal", shard: Shard | None = None) -> int:
    """Describe all objects, or those of a shard's blocks, that the journal does not have; returns how many it has."""
    from tqdm import tqdm

    blocks = part_of(list(enumerate(job.blocks)), shard)
    total = sum(len(rows) for _, rows in blocks)
    with tqdm(total=total, desc=f"caption {job.info.captioner}", unit="object") as bar:
        for number, rows in blocks:
            if str(number) not in journal:
                journal.put(str(number), {}, _packed(job.captioner(rows)))
            bar.update(len(rows))
    return total


def _write(params: CaptionParams, job: Job, target: Path, *, state: Path) -> None:
    """Describe all objects, block by block, and write what was found."""
    from pointloom.data.captions import write_captions
    from pointloom.data.replace import replaced_folder

    with _kept(job, state) as journal:
        _describe(job, journal)
        failures = _failures(_read_blocks(journal, len(job.blocks)), job.store)
        if isinstance(params, Blip2CaptionParams):
            _check_failures(params, failures, job.store, target)
        described = _read_blocks(journal, len(job.blocks))
        objects = ((str(uid), found.captions) for uid, found in zip(job.store.uids, described, strict=True))
        with replaced_folder(target) as folder:
            write_captions(folder, objects, info=job.info, failures=failures)


def _packed(found: "list[Described]") -> bytes:
    return json.dumps([dataclasses.asdict(described) for described in found]).encode()


def _read_blocks(journal: "ByteJournal", count: int) -> "Iterator[Described]":
    from pointloom.data.captions import Caption, Described

    for number in range(count):
        for found in json.loads(journal.get(str(number))[1]):
            problem = found["problem"]
            yield Described([Caption(**values) for values in found["captions"]], tuple(problem) if problem else None)


def _failures(described: "Iterator[Described]", store: "ObjectStore") -> "list[Failure]":
    from pointloom.data.records import Failure

    return [
        Failure(str(path), *found.problem)
        for path, found in zip(store.paths, described, strict=True)
        if found.problem is not None
    ]


def _check_failures(params: Blip2CaptionParams, failures: "list[Failure]", store: "ObjectStore", target: Path) -> None:
    num, total = len(failures), len(store)
    for failure in failures[:5]:
        logger.warning("no caption: %s (%s: %s)", failure.path, failure.reason, failure.detail)
    if num == total or num > params.max_failure_ratio * total:
        first = failures[0]
        raise DataError(
            f"{target}: {num} of {total} objects have no caption that is ok, more than max_failure_ratio "
            f"{params.max_failure_ratio:g} allows; the first is {first.path} ({first.reason}: {first.detail}). "
            "Render the views again, change prompt, samples or seed, or raise caption.X.max_failure_ratio"
        )


def _summarise(made: "CaptionStore", store: "ObjectStore") -> dict[str, float]:
    """Return counts, and how often the best captions of different training objects are the same text."""
    counts: dict[str, float] = {"objects": len(made), "captions": 0, "captions_ok": 0, "without_caption": 0}
    train = set(store.uids[store.rows("train")].tolist())
    scores: list[float] = []
    texts: list[str] = []
    for uid, found in made:
        usable = [one for one in found if one.ok]
        counts["captions"] += len(found)
        counts["captions_ok"] += len(usable)
        counts["without_caption"] += not usable
        scores += [one.score for one in usable[:1] if one.score is not None]
        texts += [one.text for one in usable[:1] if uid in train]
    counts["different_top_share"] = len(set(texts)) / len(texts) if texts else 0.0
    if scores:
        counts["top_score/mean"] = sum(scores) / len(scores)
    return counts

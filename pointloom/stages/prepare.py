"""prepare: files or generated objects in, the prepared store out.

Finished objects are kept in the state folder until the store is complete, so that an interrupted run goes on where it
stopped; what cannot be used is listed in ``failures.jsonl`` and does not stop the rest.
"""

import errno
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from pointloom.errors import DataError, ParamsError
from pointloom.stages.artifacts import DatasetOut, MetricsOut, RawIn, StateDir
from pointloom.stages.fan_out import Shard, journal_files, label, part_of
from pointloom.stages.params import StageParams
from pointloom.stages.working_off import work_off

if TYPE_CHECKING:
    from pointloom.data.journal import Journal
    from pointloom.data.records import Failure, ObjectPoints, ObjectRecord, StoreInfo
    from pointloom.data.scene_store import SceneStoreInfo
    from pointloom.data.sources import SourceObject
    from pointloom.stages.prepare_plan import Plan

logger = logging.getLogger(__name__)


Source = Literal[
    "folder", "synthetic", "modelnet40", "modelnet_fewshot", "scanobjectnn", "shapenet55", "shapenetpart",
    "synthetic_rooms", "scans", "s3dis", "scannet", "scannet_votenet", "pointcept", "sunrgbd",
]  # fmt: skip
SCENE_SOURCES = ("synthetic_rooms", "scans", "s3dis", "scannet", "scannet_votenet", "pointcept", "sunrgbd")
"""Sources of scenes; everything else is prepared object by object."""


class RoomParams(StageParams):
    """How generated rooms are made; see ``RoomSettings``, whose defaults these are."""

    kinds: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="kinds of rooms that take turns, e.g. office; null: all of them"
    )
    num_cameras: int = Field(default=3, ge=1, description="places from which a room is scanned: fewer see less of it")
    falloff: float = Field(default=1.0, ge=0, le=2, description="how fast points get fewer with the distance, 0: not")
    noise: float = Field(default=0.002, ge=0, le=0.05, description="deviation along the ray, metres per metre")
    ceiling: bool = Field(default=False, description="rooms have one; its points have no class")
    clutter: bool = Field(default=True, description="small things stand on tops and on the floor")
    sentences_per_object: int = Field(default=3, ge=0, description="sentences that refer to an object, at most")
    least_points: int = Field(default=10, ge=1, description="objects with fewer points have no label, box or sentence")


class ScenePreparation(StageParams):
    """What only scenes have."""

    aligned: bool | None = Field(
        default=None, description="whether axes are turned along the walls; only scannet must and few others may say"
    )
    unit: Literal["m", "cm", "mm"] = Field(default="m", description="of the files of source scans")
    max_points: int = Field(
        default=2_000_000, ge=1000, description="larger scenes are thinned on a grid, and a note says so"
    )
    labelled_scenes: str | None = Field(
        default=None, description="list of the training scenes that keep their labels (LR); the others go to pretrain"
    )
    labelled_points: str | None = Field(
        default=None, description="file of the points of training scenes that keep their labels (LA)"
    )
    sentences: list[str] = Field(default=[], description="ScanRefer's JSON files, for scannet and pointcept")
    rooms: RoomParams | None = Field(default=None, description="how rooms are made, for synthetic_rooms")

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave absent rooms out, so that sections from before there was a choice keep their digest."""
        values: dict[str, Any] = handler(self)
        return {name: value for name, value in values.items() if name != "rooms" or value is not None}


class PrepareParams(StageParams):
    """What to prepare and how.

    Attributes:
        source: ``folder`` reads the files of the source folder and ``scans`` those of scenes, ``synthetic`` generates
            labelled objects and ``synthetic_rooms`` labelled rooms; any other is a published data set whose official
            files are in the source folder (`pointloom datasets` lists them).
        variant: Layout or version of a published data set; without meaning for ``folder`` and ``synthetic``.
        num_objects: How many labelled objects or rooms are generated; without meaning for other sources.
        unlabelled_synthetic: How many further ones are generated for pre-training only; they never have a label.
        num_points: Points per object in the store, in farthest-point order; points per generated room. Other scenes
            keep all of theirs.
        seed: Of sampling, splits and generated objects.
        test_fraction: Part of the groups of each category that goes to test, where no list or column says so.
        up: Up axis of all files; ``auto`` goes by data set or format (glTF and OBJ y, DAE as declared, others z).
        train_list: Text file of relative paths or names of scenes; itself relative to the workspace or else to the
            source folder.
        test_list: The same for the test split; files in neither list are left out.
        max_failure_ratio: The stage fails when more than this part of the inputs is quarantined.
        max_file_mb: Larger files are quarantined.
        timeout_s: Wall-clock limit per object.
        max_memory_gb: Memory limit of a worker process.
        num_workers: Worker processes; 0 means one per core.
        scenes: What only scenes have.
    """

    source: Source
    variant: str | None = None
    num_objects: int = Field(ge=0)
    unlabelled_synthetic: int = Field(ge=0)
    num_points: int = Field(ge=16, le=1_000_000)
    seed: int = Field(ge=0)
    test_fraction: float = Field(ge=0, lt=1)
    up: Literal["auto", "x", "y", "z"]
    train_list: str | None = None
    test_list: str | None = None
    max_failure_ratio: float = Field(ge=0, le=1)
    max_file_mb: float = Field(default=500.0, gt=0)
    timeout_s: float = Field(default=120.0, gt=0)
    max_memory_gb: float = Field(default=4.0, gt=0)
    num_workers: int = Field(default=0, ge=0)
    scenes: ScenePreparation | None = None

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave an absent variant out, so that sections from before there were variants keep their digest."""
        values: dict[str, Any] = handler(self)
        return {name: v for name, v in values.items() if name not in ("variant", "scenes") or v is not None}


def prepare(
    params: PrepareParams,
    *,
    source: RawIn,
    dataset: DatasetOut,
    metrics: MetricsOut,
    state: StateDir,
    shard: Shard | None = None,
) -> None:
    """Turn a folder of meshes, clouds or scenes, or generated ones, into a prepared store.

    Raises:
        DataError: There is nothing to prepare, too much of it failed, or the disk is full.
        WorkspaceError: Another run is preparing into the same state folder.
    """
    from pointloom.stages.runs import stage_run

    inputs = {"source": source}
    with stage_run("prepare", params=params, inputs=inputs, metrics=metrics, state=state, shard=shard) as run:
        if shard:
            run.summary(prepare_shard(params, shard, source=source, dataset=dataset, state=state))
            return
        info = prepare_store(params, source=source, dataset=dataset, state=state)
        run.set_tags({"data.digest": info.digest})
        numbers = {name: float(count) for name, count in info.counts.items()}
        run.summary(numbers | {"classes": float(len(info.classes)), "quarantined": float(info.quarantined)})
        run.log_artifact(dataset / "dataset.json")
        run.log_artifact(dataset / "failures.jsonl")


def prepare_store(params: PrepareParams, *, source: Path, dataset: Path, state: Path) -> "StoreInfo | SceneStoreInfo":
    """Prepare without measuring or tracking.

    Raises:
        DataError: There is nothing to prepare, too much of it failed, or the disk is full.
        ParamsError: Parameters do not fit the source.
        WorkspaceError: Another run is preparing into the same state folder.
    """
    from pointloom.data.shards import write_store
    from pointloom.data.sources import quarantine_notes
    from pointloom.stages.prepare_plan import plan_prepare

    if params.source in SCENE_SOURCES:
        from pointloom.stages.prepare_scenes import prepare_scenes

        return prepare_scenes(params, source=source, dataset=dataset)
    if params.scenes is not None:
        raise ParamsError(f"prepare.scenes: source {params.source} has objects, not scenes; remove it")
    plan = plan_prepare(params, source)
    listing = plan.listing
    with _kept(plan, params, dataset, state) as journal:
        failures = listing.failures + _work_off(params, plan, journal)
        check_failures(params, listing.objects, failures, dataset)
        kept = [o for o in listing.objects if plan.intake.key(o) in journal]
        changes = quarantine_notes(listing.objects, kept)
        info = write_store(
            dataset,
            _finished(plan, journal, kept),
            num_points=params.num_points,
            source=params.source,
            settings=plan.settings,
            failures=failures,
            parts=plan.parts,
            notes=[*listing.notes, *changes],
            classes=plan.classes,
        )
    for change in changes:
        logger.warning(change)
    if missing := info.counts.get("texture_missing"):
        logger.warning("objects with missing textures or materials: %d; they keep their plain colour", missing)
    logger.info("prepared %d objects of %d classes in %s", info.counts["objects"], len(info.classes), dataset)
    return info


def prepare_shard(params: PrepareParams, shard: Shard, *, source: Path, dataset: Path, state: Path) -> dict[str, float]:
    """Prepare a part of the objects and keep it for the whole stage; returns how many, and how many cannot be used.

    Raises:
        DataError: There is nothing to prepare, or the disk is full.
        ParamsError: The source is not prepared object by object.
        WorkspaceError: The same part, or the whole stage, is running in the same state folder.
    """
    from pointloom.stages.prepare_plan import plan_prepare

    if params.source in SCENE_SOURCES:
        raise ParamsError(f"prepare: scenes ({params.source}) are not done in parts; leave --shard, --num-shards out")
    plan = plan_prepare(params, source)
    with _kept(plan, params, dataset, state, shard) as journal:
        failures = _work_off(params, plan, journal, shard)
    done = len(part_of(plan.listing.objects, shard)) - len(failures)
    logger.info("shard %s: %d objects are kept in %s, %d cannot be used", shard, done, journal.path, len(failures))
    return {"objects": float(done), "quarantined": float(len(failures))}


@contextmanager
def _kept(
    plan: "Plan", params: PrepareParams, dataset: Path, state: Path, shard: Shard | None = None
) -> "Iterator[Journal]":
    """Open the journal of finished objects, and remove it when the store is complete; explain a full disk."""
    from pointloom.data.journal import Journal
    from pointloom.train.state import locked_folder

    work = state / "prepare"
    _check_disk(work, dataset, num_objects=len(plan.listing.objects), num_points=params.num_points)
    try:
        with locked_folder(work, stage="prepare", shard=label(shard)):
            with Journal(*journal_files(work, "objects", shard)) as journal:
                yield journal
            if not shard:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise _explain_full_disk(error, work) from error


def _work_off(params: PrepareParams, plan: "Plan", journal: "Journal", shard: Shard | None = None) -> "list[Failure]":
    """Prepare every object, or every one of a shard, that the journal does not have yet."""
    from pointloom.data.intake import warm_up

    intake, objects = plan.intake, part_of(plan.listing.objects, shard)
    return work_off(
        "prepare",
        intake,
        [o for o in objects if intake.key(o) not in journal],
        total=len(objects),
        keep=lambda item, result: journal.append(intake.key(item), *result),
        num_workers=plan.num_workers,
        timeout_s=params.timeout_s,
        max_memory_gb=params.max_memory_gb,
        warm_up=warm_up,
    )


def _finished(
    plan: "Plan", journal: "Journal", kept: "Sequence[SourceObject]"
) -> "Iterator[tuple[ObjectRecord, ObjectPoints]]":
    """Yield the finished objects in the order of the listing, with its categories and splits.

    Those may have changed since an object was put into the journal; its points have not.
    """
    from tqdm import tqdm

    for o in tqdm(kept, desc="store", unit="object", delay=2):
        record, points = journal.read(plan.intake.key(o))
        name = record.name if o.synthetic_index is not None else o.name
        yield replace(record, name=name, category=o.category, group=o.group, split=o.split), points


def check_failures(
    params: PrepareParams, objects: Sequence[object], failures: "Sequence[Failure]", dataset: Path
) -> None:
    """Stop when too much was quarantined; files of unsupported formats do not count, they often lie beside others.

    Raises:
        DataError: It is more than ``max_failure_ratio``.
    """
    from pointloom.data.shards import write_failures

    reasons = Counter(f.reason for f in failures if f.reason != "unsupported")
    for failure in failures[:5]:
        logger.warning("left out: %s (%s: %s)", failure.path, failure.reason, failure.detail)
    if len(failures) > 5:
        logger.warning("left out: %d more, see failures.jsonl in %s", len(failures) - 5, dataset)
    num, total = reasons.total(), len(objects)
    if num == total or num > params.max_failure_ratio * total:
        path = write_failures(dataset, failures)
        summary = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise DataError(
            f"{num} of {total} inputs cannot be used ({summary}), more than max_failure_ratio "
            f"{params.max_failure_ratio:g} allows; {path} says why for each. Repair or remove them, or raise "
            "prepare.max_failure_ratio, and run again: what is finished is kept"
        )


def _check_disk(work: Path, dataset: Path, *, num_objects: int, num_points: int) -> None:
    """Compare the free space with what the finished objects and the store will take together."""
    from pointloom.data.shards import BYTES_PER_POINT

    needed = 2 * num_objects * num_points * BYTES_PER_POINT
    for folder in (work, dataset.parent):
        folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(work).free
    kept = sum(path.stat().st_size for path in work.glob("*.journal"))
    if free + kept < needed:
        raise DataError(
            f"{work}: {num_objects} objects need about {needed / 1e9:.1f} GB while they are prepared (half of it "
            f"afterwards), {free / 1e9:.1f} GB are free; free some space or lower prepare.num_points"
        )


def _explain_full_disk(error: OSError, work: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "errno = 28" in str(error):
        return DataError(
            f"{work}: the disk is full ({error}); free some space and run again: what is finished is kept there"
        )
    return error

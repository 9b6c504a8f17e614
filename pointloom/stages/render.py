"""render: the prepared store and its source in, pictures with depth of every object out.

Finished objects are kept in the state folder until all are done, so that an interrupted run goes on where it stopped;
objects that no view shows are listed in ``failures.jsonl`` and do not stop the rest.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pointloom.errors import DataError
from pointloom.stages.artifacts import DatasetIn, MetricsOut, RawIn, StateDir, ViewsOut
from pointloom.stages.fan_out import Shard, journal_files, part_of
from pointloom.stages.params import StageParams
from pointloom.stages.working_off import work_off

if TYPE_CHECKING:
    from pointloom.data.journal import ByteJournal
    from pointloom.data.records import Failure
    from pointloom.data.shards import ObjectStore
    from pointloom.data.views import ObjectViews, ViewsInfo
    from pointloom.render.objects import ObjectRenderer, RenderItem

logger = logging.getLogger(__name__)


class RenderParams(StageParams):
    """Which pictures to make and how.

    Attributes:
        layout: Where the cameras stand.
        size: Width and height of a picture in pixels.
        supersample: Samples along each side of a pixel, averaged to its colour.
        fov_degrees: Angle of view; the cameras' distance follows from it, so that every object fits.
        renderer: ``auto`` takes EGL, and the ray caster where there is no EGL.
        require_gpu: Fail where views would be drawn on the CPU.
        max_failure_ratio: The stage fails when more than this part of the objects is left out.
        timeout_s: Wall-clock limit per object.
        max_memory_gb: Memory limit of a worker process.
        num_workers: Worker processes; 0 means one per core.
    """

    layout: Literal["openshape12", "ulip30"]
    size: int = Field(ge=16, le=1024)
    supersample: int = Field(ge=1, le=4)
    fov_degrees: float = Field(ge=20, le=90)
    renderer: Literal["auto", "egl", "raycast"]
    require_gpu: bool
    max_failure_ratio: float = Field(ge=0, le=1)
    timeout_s: float = Field(default=120.0, gt=0)
    max_memory_gb: float = Field(default=4.0, gt=0)
    num_workers: int = Field(default=0, ge=0)


_SHAPING = {"layout", "size", "supersample", "fov_degrees"}


@dataclass(frozen=True)
class Plan:
    """What is to be rendered and how.

    Attributes:
        items: All objects of the store.
        renderer: How one of them becomes views.
        info: Description of the views, without a digest.
    """

    items: "list[RenderItem]"
    renderer: "ObjectRenderer"
    info: "ViewsInfo"

    @property
    def shaped_by(self) -> dict[str, Any]:
        """Return everything that the pictures depend on."""
        info = self.info
        return {
            "settings": info.settings,
            "dataset": info.dataset_digest,
            "renderer": info.renderer,
            "device": info.device,
        }


def render(
    params: RenderParams,
    *,
    source: RawIn,
    dataset: DatasetIn,
    views: ViewsOut,
    metrics: MetricsOut,
    state: StateDir,
    shard: Shard | None = None,
) -> None:
    """Render every object of a prepared store from several sides, in colour and depth.

    Raises:
        BackendError: No renderer works here, or none on a GPU though one is required.
        DataError: The source folder is gone, or too many objects cannot be rendered.
        WorkspaceError: Another run is rendering the same views.
    """
    from pointloom.stages.runs import stage_run

    inputs = {"source": source, "dataset": dataset}
    with stage_run(
        "render", name=views.name, params=params, inputs=inputs, metrics=metrics, state=state, shard=shard
    ) as run:
        if shard:
            run.summary(render_shard(params, shard, source=source, dataset=dataset, state=state))
            return
        info = render_views(params, source=source, dataset=dataset, views=views, state=state)
        run.set_tags({"views.digest": info.digest, "renderer": info.renderer, "renderer.device": info.device})
        run.summary(_headline(views))
        run.log_artifact(views / "views.json")
        run.log_artifact(views / "failures.jsonl")


def render_views(params: RenderParams, *, source: Path, dataset: Path, views: Path, state: Path) -> "ViewsInfo":
    """Render without measuring or tracking.

    Raises:
        BackendError: No renderer works here, or none on a GPU though one is required.
        DataError: The source folder is gone, or too many objects cannot be rendered.
        WorkspaceError: Another run is rendering the same views.
    """
    from pointloom.data.journal import ByteJournal
    from pointloom.data.replace import replaced_folder
    from pointloom.data.views import write_views
    from pointloom.train.state import resume_state

    plan = _plan(params, source, dataset)
    with (
        resume_state(state, stage="render", shaped_by=plan.shaped_by) as work,
        ByteJournal(*journal_files(work, "views", None)) as journal,
        replaced_folder(views) as folder,
    ):
        failures = _work_off(params, plan.items, plan.renderer, journal)
        _check_failures(params, len(plan.items), failures, views)
        info = write_views(folder, _finished(plan.items, journal), info=plan.info, failures=failures)
    logger.info("rendered %d objects from %d sides into %s", len(plan.items) - len(failures), len(info.poses), views)
    return info


def render_shard(params: RenderParams, shard: Shard, *, source: Path, dataset: Path, state: Path) -> dict[str, float]:
    """Render a part of the objects and keep it for the whole stage; returns how many, and how many cannot be rendered.

    Raises:
        BackendError: No renderer works here, or none on a GPU though one is required.
        DataError: The source folder is gone.
        WorkspaceError: The same part, or the whole stage, is being rendered.
    """
    from pointloom.data.journal import ByteJournal
    from pointloom.train.state import resume_state

    plan = _plan(params, source, dataset)
    items = part_of(plan.items, shard)
    with (
        resume_state(state, stage="render", shaped_by=plan.shaped_by, shard=str(shard)) as work,
        ByteJournal(*journal_files(work, "views", shard)) as journal,
    ):
        failures = _work_off(params, items, plan.renderer, journal)
    logger.info("shard %s: %d objects are kept in %s", shard, len(items) - len(failures), journal.path)
    return {"objects": float(len(items) - len(failures)), "quarantined": float(len(failures))}


def _plan(params: RenderParams, source: Path, dataset: Path) -> Plan:
    """Open the store and choose who draws."""
    from pointloom.data.shards import ObjectStore
    from pointloom.data.views import ViewsInfo
    from pointloom.render.backend import choose_renderer
    from pointloom.render.cameras import Rig
    from pointloom.render.objects import VERSION, ObjectRenderer
    from pointloom.render.samples import SampleGrid

    store = ObjectStore(dataset)
    items = list_items(store, source)
    chosen = choose_renderer(params.renderer, require_gpu=params.require_gpu)
    if chosen.problem:
        logger.warning("views are drawn by the slower ray caster, because EGL cannot be used: %s", chosen.problem)
    logger.info("views are drawn by %s on %s", chosen.name, chosen.device)
    rig = Rig(layout=params.layout, size=params.size, fov_degrees=params.fov_degrees)
    info = ViewsInfo(
        layout=params.layout,
        size=params.size,
        intrinsics=rig.intrinsics,
        poses=rig.poses,
        renderer=chosen.name,
        device=chosen.device,
        settings=params.model_dump(include=_SHAPING) | {"version": VERSION},
        dataset_digest=store.info.digest,
    )
    renderer = ObjectRenderer(
        source=source, dataset=dataset, grid=SampleGrid(rig, params.supersample), renderer=chosen.name
    )
    return Plan(items, renderer, info)


def list_items(store: "ObjectStore", source: Path) -> "list[RenderItem]":
    """List what is to be rendered.

    Raises:
        DataError: There are files to read, but no source folder.
    """
    from pointloom.data.originals import is_generated
    from pointloom.render.objects import RenderItem

    names = ("uid", "path", "sha256", "transform", "num_faces")
    items = [
        RenderItem(row, uid, path, sha256, tuple(transform), num_faces > 0)
        for row, (uid, path, sha256, transform, num_faces) in enumerate(zip(*map(store.index.get, names), strict=True))
    ]
    if not source.is_dir() and any(i.has_faces and not is_generated(uid=i.uid, path=i.path) for i in items):
        raise DataError(f"{source}: there is no such folder; give the folder that {store.path} was prepared from")
    return items


def _work_off(
    params: RenderParams, items: "list[RenderItem]", renderer: "ObjectRenderer", journal: "ByteJournal"
) -> "list[Failure]":
    """Render every object that the journal does not have yet."""
    return work_off(
        "render",
        renderer,
        [item for item in items if item.uid not in journal],
        total=len(items),
        keep=lambda _, views: _keep(journal, views),
        num_workers=params.num_workers,
        timeout_s=params.timeout_s,
        max_memory_gb=params.max_memory_gb,
        warm_up=renderer.warm_up,
    )


def _keep(journal: "ByteJournal", views: "ObjectViews") -> None:
    pictures = (*views.rgb, *views.depth)
    lengths = [len(picture) for picture in pictures]
    description = {"lengths": lengths, "valid": views.valid, "coverage": views.coverage}
    journal.put(views.uid, description, b"".join(pictures))


def _finished(items: "list[RenderItem]", journal: "ByteJournal") -> "Iterator[ObjectViews]":
    """Yield the finished objects in the order of the store."""
    from itertools import accumulate, pairwise

    from pointloom.data.views import ObjectViews

    for item in items:
        if item.uid in journal:
            kept, content = journal.get(item.uid)
            cuts = pairwise(accumulate(kept["lengths"], initial=0))
            pictures = [content[start:stop] for start, stop in cuts]
            num = len(kept["valid"])
            yield ObjectViews(
                uid=item.uid,
                rgb=tuple(pictures[:num]),
                depth=tuple(pictures[num:]),
                valid=tuple(kept["valid"]),
                coverage=tuple(kept["coverage"]),
            )


def _check_failures(params: RenderParams, total: int, failures: "list[Failure]", views: Path) -> None:
    """Stop when too many objects were left out."""
    from pointloom.data.shards import write_failures

    for failure in failures[:5]:
        logger.warning("left out: %s (%s: %s)", failure.path, failure.reason, failure.detail)
    if len(failures) > 5:
        logger.warning("left out: %d more, see failures.jsonl in %s", len(failures) - 5, views)
    num = len(failures)
    if num == total or num > params.max_failure_ratio * total:
        path = write_failures(views, failures)
        summary = ", ".join(f"{count} {reason}" for reason, count in Counter(f.reason for f in failures).most_common())
        raise DataError(
            f"{num} of {total} objects cannot be rendered ({summary}), more than max_failure_ratio "
            f"{params.max_failure_ratio:g} allows; {path} says why for each. Repair them, or raise max_failure_ratio "
            "of this stage, and run again: what is finished is kept"
        )


def _headline(views: Path) -> dict[str, Any]:
    """Return what the stage's numbers are: counts of objects and pictures, and the size on disk."""
    from pointloom.data.views import ViewStore

    store = ViewStore(views)
    size = sum(path.stat().st_size for path in views.rglob("*.h5"))
    return {
        "objects": len(store),
        "views": store.valid.size,
        "rejected_views": int((~store.valid).sum()),
        "quarantined": len(store.failures()),
        "mean_coverage": round(float(store.coverage[store.valid].mean()), 4),
        "megabytes": round(size / 1e6, 1),
    }

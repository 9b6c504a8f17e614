"""The part of stage ``embed`` that looks: all usable views through the image teachers."""

import logging
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pointloom.data.feature_files import FeatureInfo
from pointloom.data.journal import ByteJournal
from pointloom.data.shards import ObjectStore
from pointloom.data.views import ViewStore
from pointloom.data.workers import available_cores
from pointloom.stages.embed import DescriptorParams, EmbedParams, NetworkParams
from pointloom.stages.fan_out import Shard, journal_files, part_of
from pointloom.stages.teacher_loading import Loader, cache_key, progress_interval
from pointloom.teachers import IMAGE_TEACHERS, FittedTower, ImageTower
from pointloom.teachers.images import DEPTH_IMAGE, depth_image

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

BLOCK = 16  # objects whose views go through a teacher together, always the same ones; what a kill can cost
FIT_BLOCK = 64

Pictures = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ImagePass:
    """An image teacher and the kind of views it looks at.

    Attributes:
        info: Of the teacher, with its key.
        tower: The teacher.
        journal: Finished objects: vectors of their usable views, before a fitted teacher's projection.
    """

    info: FeatureInfo
    tower: ImageTower
    journal: ByteJournal

    def encode(self, pictures: Pictures) -> NDArray[np.float32]:
        """Return (n, R) vectors of n views."""
        shown = pictures[self.info.source]
        if self.info.source == "depth" and not isinstance(self.tower, FittedTower):
            shown = depth_image(shown)
        return self.tower.encode_image(shown).astype(np.float32)

    def read(self, uid: str, num: int) -> NDArray[np.float32]:
        """Return the (num, R) vectors of an object's usable views."""
        return np.frombuffer(bytearray(self.journal.get(uid)[1]), dtype=np.float32).reshape(num, -1)


class ViewPasses:
    """All image teachers over all usable views; every view is decoded once for all of them.

    Attributes:
        infos: Of the teachers, with their keys.
    """

    def __init__(self, params: EmbedParams, store: ObjectStore, views: ViewStore, loader: Loader) -> None:
        self._views = views
        self._teachers = [_build(image, store, views, loader) for image in params.images]
        self.infos = [info for info, _ in self._teachers]
        self._usable = {
            uid: np.flatnonzero(views.valid[row]) for uid, row in views.row_of.items() if views.valid[row].any()
        }
        self._training = {str(uid) for uid in store.uids[store.splits != "test"]} & set(self._usable)

    def run(self, work: "Path", stack: ExitStack, *, without: Collection[str] = ()) -> list[ImagePass]:
        """Describe all views, and fit the teachers that learn from the training objects.

        Args:
            work: Folder of the journals; what they have is not done again.
            stack: Closes the journals.
            without: Names of teachers whose vectors are there already.
        """
        passes = [one for one in self._open(work, stack, None) if one.info.name not in without]
        self._describe(passes, None)
        for one in passes:
            if isinstance(one.tower, FittedTower):
                one.tower.fit(self._training_blocks(one))
        return passes

    def run_shard(self, work: "Path", shard: Shard) -> int:
        """Describe the views of a part of the objects and keep that for the whole stage; returns how many objects."""
        with ExitStack() as stack:
            return self._describe(self._open(work, stack, shard), shard)

    def _open(self, work: "Path", stack: ExitStack, shard: Shard | None) -> list[ImagePass]:
        return [
            ImagePass(info, tower, stack.enter_context(ByteJournal(*journal_files(work, info.name, shard))))
            for info, tower in self._teachers
        ]

    def values(self, uid: str, one: ImagePass) -> NDArray[np.float32]:
        """Return (V, D) vectors of an object, NaN where a view cannot be used."""
        found = np.full((self._views.valid.shape[1], one.info.dim), np.nan, dtype=np.float32)
        if uid in self._usable:
            raw = one.read(uid, len(self._usable[uid]))
            value = one.tower.project(raw) if isinstance(one.tower, FittedTower) else raw
            found[self._usable[uid], : value.shape[1]] = value
            found[self._usable[uid], value.shape[1] :] = 0  # fewer components than asked for
        return found

    def _describe(self, passes: Sequence[ImagePass], shard: Shard | None) -> int:
        from tqdm import tqdm

        uids = list(self._usable)
        blocks = part_of([uids[start : start + BLOCK] for start in range(0, len(uids), BLOCK)], shard)
        todo = [block for block in blocks if any(uid not in one.journal for uid in block for one in passes)]
        total = sum(map(len, blocks))
        done = total - sum(map(len, todo))
        if done and todo:
            logger.info("going on where the last run stopped: %d of %d objects are done", done, total)
        label, interval = "embed views", progress_interval()
        with tqdm(total=total, initial=done, desc=label, unit="object", mininterval=interval) as bar:
            for block, pictures in self._decoded(todo, {one.info.source for one in passes}):
                for one in passes:
                    self._keep(one, block, pictures)
                bar.update(len(block))
        return total

    def _keep(self, one: ImagePass, block: list[str], pictures: Pictures) -> None:
        if all(uid in one.journal for uid in block):
            return
        value = one.encode(pictures)
        cuts = np.cumsum([len(self._usable[uid]) for uid in block])[:-1]
        for uid, part in zip(block, np.split(value, cuts), strict=True):
            one.journal.put(uid, {}, part.tobytes())

    def _decoded(self, blocks: Sequence[list[str]], sources: set[str]) -> Iterator[tuple[list[str], Pictures]]:
        """Yield blocks of objects with their usable views; while one is looked at, the next are being decoded."""
        with ThreadPoolExecutor(available_cores()) as pool:
            ahead: list[list[Future[Pictures]]] = []
            for number, block in enumerate(blocks):
                while len(ahead) < min(2, len(blocks) - number):
                    ahead.append([pool.submit(self._read, uid, sources) for uid in blocks[number + len(ahead)]])
                found = [future.result() for future in ahead.pop(0)]
                yield block, {source: np.concatenate([pictures[source] for pictures in found]) for source in sources}

    def _read(self, uid: str, sources: set[str]) -> Pictures:
        row, usable = self._views.row_of[uid], self._usable[uid].tolist()
        readers = {"rgb": self._views.rgb, "depth": self._views.depth}
        return {source: readers[source](row, usable) for source in sources}

    def _training_blocks(self, one: ImagePass) -> Iterator[NDArray[np.float32]]:
        uids = [uid for uid in self._usable if uid in self._training]
        for start in range(0, len(uids), FIT_BLOCK):
            yield np.concatenate([one.read(uid, len(self._usable[uid])) for uid in uids[start : start + FIT_BLOCK]])


def _build(
    image: DescriptorParams | NetworkParams, store: ObjectStore, views: ViewStore, loader: Loader
) -> tuple[FeatureInfo, ImageTower]:
    """Load a teacher and name what it makes."""
    shown: dict[str, Any] = {"views": views.info.digest}
    source: Literal["rgb", "depth"]
    if isinstance(image, DescriptorParams):
        tower = IMAGE_TEACHERS[image.teacher](dim=image.dim, whitening=image.whitening, device=loader.device)
        source = "depth" if image.teacher == "shape" else "rgb"
        shown["fitted_on"] = store.info.digest
    else:
        tower = loader.network(image.teacher, image)
        source = image.source
        shown["picture"] = DEPTH_IMAGE if source == "depth" else "rgb"
    key = cache_key(tower.identity, source=source, **shown)
    return FeatureInfo(image.name, "image", source, tower.name, tower.dim, key), tower

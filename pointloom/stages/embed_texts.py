"""The part of stage ``embed`` that reads: every distinct caption once through the text teacher."""

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pointloom.data.captions import CaptionStore
from pointloom.data.feature_files import FeatureInfo
from pointloom.data.journal import ByteJournal
from pointloom.data.shards import ObjectStore
from pointloom.stages.embed import BagOfWordsParams, ClipTextParams, EmbedParams
from pointloom.stages.fan_out import Shard, journal_files, part_of
from pointloom.stages.teacher_loading import Loader, cache_key, progress_interval
from pointloom.teachers import TEXT_TEACHERS, TextTower
from pointloom.teachers.offline_text import BagOfWords
from pointloom.teachers.prompts import PROMPTS, class_vectors, clean_name

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

BLOCK = 1024  # texts per record of the journal: what a kill can cost


class TextPass:
    """The captions of all objects and the teacher that reads them.

    Attributes:
        info: Of the teacher, with its key.
        texts: Per object the captions that are embedded, best first.
        num_truncated: Distinct captions that are longer than the teacher reads.
    """

    def __init__(self, params: EmbedParams, store: ObjectStore, captions: CaptionStore, loader: Loader) -> None:
        assert params.text is not None
        self._params = params.text
        self._precision = params.precision
        self._classes = store.info.classes
        num = params.text.num_captions
        self.texts = {str(uid): [c.text for c in captions.of(str(uid)) if c.ok][:num] for uid in store.uids}
        distinct = dict.fromkeys(text for texts in self.texts.values() for text in texts)
        self._id_of = {text: number for number, text in enumerate(distinct)}
        training = [text for uid in store.uids[store.splits != "test"] for text in self.texts[str(uid)]]
        self._tower = _build(params, training, loader)
        key = cache_key(
            self._tower.identity,
            captions=captions.info.digest,
            num_captions=num,
            prompts=self._prompts,
            class_names=self._class_names,
        )
        self.info = FeatureInfo(params.text.name, "text", "captions", self._tower.name, self._tower.dim, key)
        self.num_truncated = self._tower.num_truncated(list(self._id_of))

    def ids(self, uid: str) -> tuple[int, ...]:
        """Return the numbers of an object's captions; equal texts have equal numbers."""
        return tuple(self._id_of[text] for text in self.texts[uid])

    def run(self, work: "Path") -> NDArray[np.float32]:
        """Return (T, D) vectors of all distinct captions by number; what the journals have is not encoded again.

        Args:
            work: Folder of the journals.
        """
        result = np.empty((len(self._id_of), self.info.dim), dtype=np.float32)
        if self.num_truncated:
            logger.warning("%s: %d of %d captions are cut off", self.info.name, self.num_truncated, len(result))
        with ByteJournal(*journal_files(work, self.info.name, None)) as journal:
            self._encode(journal, None)
            for start in range(0, len(result), BLOCK):
                value = np.frombuffer(journal.get(str(start))[1], dtype=np.float32)
                result[start : start + BLOCK] = value.reshape(-1, self.info.dim)
        return result

    def run_shard(self, work: "Path", shard: Shard) -> None:
        """Encode a part of the captions and keep them for the whole stage."""
        with ByteJournal(*journal_files(work, self.info.name, shard)) as journal:
            self._encode(journal, shard)

    def _encode(self, journal: ByteJournal, shard: Shard | None) -> None:
        from tqdm import tqdm

        distinct = list(self._id_of)
        starts = part_of(range(0, len(distinct), BLOCK), shard)
        total = sum(len(distinct[start : start + BLOCK]) for start in starts)
        with tqdm(total=total, desc=f"embed {self.info.name}", unit="text", mininterval=progress_interval()) as bar:
            for start in starts:
                block = distinct[start : start + BLOCK]
                if str(start) not in journal:
                    journal.put(str(start), {}, self._tower.encode_text(block).astype(np.float32).tobytes())
                bar.update(len(block))

    def values(self, uid: str, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (K, D) vectors of an object, NaN where it has no further caption."""
        found = np.full((self._params.num_captions, self.info.dim), np.nan, dtype=np.float32)
        ids = self.ids(uid)
        found[: len(ids)] = vectors[list(ids)]
        return found

    def class_vectors(self) -> NDArray[np.float32]:
        """Return (C, D) unit vectors of the class names."""
        if not self._classes:
            return np.empty((0, self.info.dim), dtype=np.float32)
        return class_vectors(self._tower.encode_text, self._class_names, prompts=self._prompts)

    def reopen(self) -> dict[str, Any]:
        """Return what ``open_text_teacher`` needs."""
        if isinstance(self._tower, BagOfWords):
            return self._tower.saved()
        options = self._params.model_dump(include={"teacher", "weights", "architecture", "quick_gelu"})
        return options | {"precision": self._precision, "identity": dict(self._tower.identity)}

    @property
    def _class_names(self) -> list[str]:
        return [clean_name(name) if self._params.class_names == "clean" else name for name in self._classes]

    @property
    def _prompts(self) -> tuple[str, ...]:
        return PROMPTS[self._params.prompts if isinstance(self._params, ClipTextParams) else "name"]


def _build(params: EmbedParams, training: list[str], loader: Loader) -> TextTower:
    """Load the teacher, or fit it on the captions of training objects."""
    if isinstance(params.text, ClipTextParams):
        tower = loader.network("clip", params.text)
        assert isinstance(tower, TextTower)
        return tower
    assert isinstance(params.text, BagOfWordsParams)
    return TEXT_TEACHERS["bag_of_words"](training, dim=params.text.dim, idf_power=params.text.idf_power)

"""The part of stage ``probe`` that names objects: an aligned encoder asked about the classes of any prepared store."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pointloom.stages.params import StageParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.data.aligned_text import AlignedText
    from pointloom.data.shards import ObjectStore
    from pointloom.methods.align import Heads


class TextProbeParams(StageParams):
    """Classification by text with the projections beside an aligned encoder; nothing is trained."""

    prompts: Literal["averaged_64", "photo", "point_cloud", "name"] = Field(
        description="sentences around the class names, whose vectors are averaged"
    )
    class_names: Literal["clean", "raw"] = Field(description="clean: blanks for underscores")


class NamingTest:
    """An aligned encoder's text side, and the classes of a store through it.

    Args:
        encoder: Folder of the encoder, which may have been aligned with other objects.
        store: Prepared objects.
        params: How class names become sentences.

    Attributes:
        named: (C,) which classes have a word of their names in a caption of the alignment. Only of the others may one
            say zero-shot.

    Raises:
        CheckpointError: The encoder was not aligned, or its text teacher cannot be opened.
    """

    def __init__(self, encoder: Path, store: "ObjectStore", params: TextProbeParams) -> None:
        from pointloom.data.aligned_text import read_aligned_text
        from pointloom.methods.align import load_heads
        from pointloom.teachers.prompts import PROMPTS, class_vectors, clean_name
        from pointloom.teachers.queries import open_saved_teacher

        self._heads: Heads = load_heads(encoder)[0]
        text: AlignedText = read_aligned_text(encoder)
        teacher = open_saved_teacher(text.reopen, name=text.teacher, where=encoder)
        clean = params.class_names == "clean"
        names = [clean_name(name) if clean else name for name in store.info.classes]
        self._class_text = class_vectors(teacher.encode, names, prompts=PROMPTS[params.prompts])
        self._store = store
        self.named: NDArray[np.bool_] = text.named(store.info.classes)

    def run(self, feature: "NDArray[np.float32]", seed: int) -> "list[tuple[dict[str, Any], NDArray[np.int64] | None]]":
        """Name the labelled test objects.

        Args:
            feature: (all objects, d) frozen features.
            seed: Of their points.

        Returns:
            A record over all classes, with the predictions: ``zero_shot`` where no name was in a caption, else
            ``text``; and in the latter case one of the other classes among each other, if there are two.
        """
        import numpy as np

        everything = np.arange(len(self.named))
        unnamed = everything[~self.named]
        found = [self._record("text" if self.named.any() else "zero_shot", everything, feature, seed)]
        if self.named.any() and len(unnamed) > 1:
            record, _ = self._record("zero_shot", unnamed, feature, seed)
            found.append((record, None))
        return [each for each in found if each[0]["num_test"]]

    def _record(
        self, protocol: str, candidates: "NDArray[np.int64]", feature: "NDArray[np.float32]", seed: int
    ) -> "tuple[dict[str, Any], NDArray[np.int64] | None]":
        import numpy as np
        import torch

        from pointloom.tasks.text_classification import chance, classify_by_text

        rows = self._store.rows("test")
        rows = rows[np.isin(self._store.labels[rows], candidates)]
        record: dict[str, Any] = {"protocol": protocol, "seed": seed, "num_test": len(rows)}
        if not len(rows):
            return record, None
        with torch.inference_mode():
            embedding = self._heads.embed(torch.from_numpy(feature[rows])).numpy()
        scores = classify_by_text(embedding, self._class_text, self._store.labels[rows], candidates=candidates.tolist())
        record |= {"num_classes": len(candidates), "classes_named": int(self.named[candidates].sum())}
        record |= scores.metrics | {"oa": scores.metrics["top1"], "chance": chance(len(candidates))}
        return record, scores.prediction

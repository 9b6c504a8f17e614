"""What grounding needs of scenes: the features of their boxes, and their sentences as a text model sees them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from pointloom.stages.params import GrowingParams, HeadParams, StageParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pointloom.data.scenes import Scene, Sentence
    from pointloom.tasks.grounding import Questions, SceneObjects, SentenceFeatures

BLOCK = 1024  # sentences that CLIP reads before they are packed


class ClipWordsParams(StageParams):
    """A CLIP model on this machine whose text tower reads sentences."""

    weights: str = Field(description="file or folder below the folder of models (POINTLOOM_MODELS)")
    architecture: str | None = Field(description="open_clip's name of the model; null for a folder, which says it")
    quick_gelu: bool | None = Field(description="activation of OpenAI's models; null: as folder, archive or name say")


class GroundingParams(HeadParams, GrowingParams):
    """Visual grounding with a head on frozen features."""

    text: Literal["bag_of_words", "clip"] = Field(
        description="where words get their vectors; bag_of_words needs no download and knows no language"
    )
    dim: int | None = Field(ge=8, description="channels of the bag of words; null for clip, which has its own")
    batch_size: int = Field(ge=2, description="sentences per step")
    clip: ClipWordsParams | None = Field(default=None, description="the model; with text: clip alone")

    @model_validator(mode="after")
    def _one_kind_of_text(self) -> "GroundingParams":
        if (self.text == "clip") != (self.clip is not None) or (self.text == "clip") != (self.dim is None):
            raise ValueError(
                "text: clip needs clip: {weights: ...} and dim: null; text: bag_of_words a dim and no clip"
            )
        return self


@dataclass(frozen=True)
class BoxesOfScene:
    """Boxes and sentences of one scene.

    Attributes:
        feature: (o, c) mean of the point features inside each box.
        center: (o, 3) metres.
        sentences: Those whose object has a box.
        target: Place of the box that each sentence means.
    """

    feature: "NDArray[np.float32]"
    center: "NDArray[np.float32]"
    sentences: "tuple[Sentence, ...]"
    target: tuple[int, ...]


def boxes_of_scene(scene: "Scene", feature: "NDArray[np.float32]") -> BoxesOfScene | None:
    """Return what is asked about a scene, None where nothing is.

    Every object can be meant, also one whose class the data set does not know: ScanRefer has sentences about pillows
    and lamps, which are none of the 18 classes with boxes.

    Note:
        M3DRef-CLIP leaves walls, floors and ceilings out. Here a ceiling that was marked as an object is one.
    """
    import numpy as np

    from pointloom.data.scene_boxes import axis_aligned
    from pointloom.data.scene_checks import boxes_of_instances
    from pointloom.tasks.grounding import box_features

    if scene.boxes is None or not scene.sentences:
        return None
    known = axis_aligned(scene.boxes)
    nameless = boxes_of_instances(replace(scene, segment=(scene.segment >= 0).astype(np.int16)), classes=[0])
    new = ~np.isin(nameless.instance, known.instance)
    instance, center, size = (
        np.concatenate([getattr(known, name), getattr(nameless, name)[new]]) for name in ("instance", "center", "size")
    )
    place = {int(number): i for i, number in enumerate(instance)}
    sentences = tuple(sentence for sentence in scene.sentences if sentence.instance in place)
    if not sentences:
        return None
    return BoxesOfScene(
        feature=box_features(scene.coord, feature, center=center, size=size),
        center=center - scene.coord.mean(axis=0),
        sentences=sentences,
        target=tuple(place[sentence.instance] for sentence in sentences),
    )


class SentenceReader:
    """Turns sentences into vectors; CLIP reads every sentence once, however often it is asked for.

    Raises:
        BackendError: open_clip is not installed, or the model has no vectors of words.
        CheckpointError: There are no weights, or they do not fit.
    """

    def __init__(self, params: GroundingParams) -> None:
        self._params = params
        self._known: dict[str, tuple[NDArray[np.float16], NDArray[np.float32]]] = {}
        self._clip = None
        if params.clip:
            from pointloom.teachers.clip import load_clip
            from pointloom.train.device import best_device

            self._clip = load_clip(**params.clip.model_dump(), device=best_device())
            self._clip.encode_words(["a chair"])

    def read(self, texts: "Sequence[str]") -> "SentenceFeatures":
        """Return the vectors of sentences and of their words; those of CLIP's words have length 1."""
        import torch

        from pointloom.tasks.grounding import SentenceFeatures
        from pointloom.teachers.offline_text import words_in_order

        if self._clip is None:
            assert self._params.dim is not None
            words, valid = words_in_order(texts, self._params.dim)
            return SentenceFeatures(
                torch.from_numpy(words), torch.from_numpy(valid), torch.from_numpy(words.sum(axis=1))
            )
        self._learn(sorted(set(texts) - self._known.keys()))
        found = [self._known[text] for text in texts]
        word = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(words) for words, _ in found], batch_first=True)
        length = torch.tensor([len(words) for words, _ in found])
        sentence = torch.stack([torch.from_numpy(vector) for _, vector in found])
        return SentenceFeatures(word, torch.arange(word.shape[1]) < length[:, None], sentence)

    def _learn(self, texts: list[str]) -> None:
        """Keep what CLIP makes of some texts; half precision, because a data set has millions of words."""
        import numpy as np

        assert self._clip is not None
        for start in range(0, len(texts), BLOCK):
            block = texts[start : start + BLOCK]
            words, valid, sentence = self._clip.encode_words(block)
            words /= np.linalg.norm(words, axis=-1, keepdims=True) + 1e-12
            for text, own, known, vector in zip(block, words, valid, sentence, strict=True):
                self._known[text] = own[known].astype(np.float16), vector


def ask(scenes: "Sequence[BoxesOfScene]", reader: SentenceReader) -> "tuple[SceneObjects, Questions]":
    """Put the boxes and sentences of scenes side by side."""
    import torch

    from pointloom.tasks.grounding import Questions, pad_objects

    questions = Questions(
        text=reader.read([sentence.text for scene in scenes for sentence in scene.sentences]),
        scene=torch.tensor([row for row, scene in enumerate(scenes) for _ in scene.sentences]),
        target=torch.tensor([target for scene in scenes for target in scene.target]),
        unique=torch.tensor([sentence.unique for scene in scenes for sentence in scene.sentences]),
    )
    return pad_objects([scene.feature for scene in scenes], [scene.center for scene in scenes]), questions


def grounding_record(
    params: GroundingParams,
    reader: SentenceReader,
    train: "Sequence[BoxesOfScene]",
    test: "Sequence[BoxesOfScene]",
    *,
    seed: int,
) -> dict[str, Any]:
    """Train on the sentences of some scenes, answer those of others."""
    from pointloom.tasks.grounding import chance, chosen_boxes, fit_grounding, grounding_accuracy

    objects, questions = ask(train, reader)
    known = objects.feature[objects.valid]
    mean, std = known.mean(0), known.std(0) + 1e-6
    head = fit_grounding(
        _standardised(objects, mean, std), questions, epochs=params.epochs, lr=params.lr,
        batch_size=params.batch_size, seed=seed,
    )  # fmt: skip
    objects, questions = ask(test, reader)
    chosen = chosen_boxes(head, _standardised(objects, mean, std), questions)
    return {
        "protocol": "grounding",
        **grounding_accuracy(chosen, questions),
        "chance": chance(objects, questions),
        "sentences": len(questions.target),
    }


def _standardised(objects: "SceneObjects", mean: "Tensor", std: "Tensor") -> "SceneObjects":
    return replace(objects, feature=(objects.feature - mean) / std * objects.valid[..., None])

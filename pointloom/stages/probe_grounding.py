"""What grounding needs of scenes: the features of their boxes, and their sentences as a text model sees them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pointloom.stages.params import HeadParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pointloom.data.scenes import Scene, Sentence
    from pointloom.tasks.grounding import Questions, SceneObjects


class GroundingParams(HeadParams):
    """Visual grounding with a head on frozen features."""

    text: Literal["bag_of_words"] = Field(
        description="where words get their vectors; bag_of_words needs no download and knows no language"
    )
    dim: int = Field(ge=8, description="channels of words")
    batch_size: int = Field(ge=2, description="sentences per step")


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
    """Return what is asked about a scene, None where nothing is."""
    from pointloom.data.scene_boxes import axis_aligned
    from pointloom.tasks.grounding import box_features

    if scene.boxes is None or not scene.sentences:
        return None
    boxes = scene.boxes
    place = {int(instance): i for i, instance in enumerate(boxes.instance)}
    sentences = tuple(sentence for sentence in scene.sentences if sentence.instance in place)
    if not sentences:
        return None
    return BoxesOfScene(
        feature=box_features(scene.coord, feature, center=boxes.center, size=axis_aligned(boxes).size),
        center=boxes.center - scene.coord.mean(axis=0),
        sentences=sentences,
        target=tuple(place[sentence.instance] for sentence in sentences),
    )


def ask(scenes: "Sequence[BoxesOfScene]", params: GroundingParams) -> "tuple[SceneObjects, Questions]":
    """Put the boxes and sentences of scenes side by side."""
    import torch

    from pointloom.tasks.grounding import Questions, SentenceFeatures, pad_objects
    from pointloom.teachers.offline_text import words_in_order

    words, valid = words_in_order([sentence.text for scene in scenes for sentence in scene.sentences], params.dim)
    text = SentenceFeatures(torch.from_numpy(words), torch.from_numpy(valid), torch.from_numpy(words.sum(axis=1)))
    questions = Questions(
        text=text,
        scene=torch.tensor([row for row, scene in enumerate(scenes) for _ in scene.sentences]),
        target=torch.tensor([target for scene in scenes for target in scene.target]),
        unique=torch.tensor([sentence.unique for scene in scenes for sentence in scene.sentences]),
    )
    return pad_objects([scene.feature for scene in scenes], [scene.center for scene in scenes]), questions


def grounding_record(
    params: GroundingParams, train: "Sequence[BoxesOfScene]", test: "Sequence[BoxesOfScene]", *, seed: int
) -> dict[str, Any]:
    """Train on the sentences of some scenes, answer those of others."""
    from pointloom.tasks.grounding import chance, chosen_boxes, fit_grounding, grounding_accuracy

    objects, questions = ask(train, params)
    known = objects.feature[objects.valid]
    mean, std = known.mean(0), known.std(0) + 1e-6
    head = fit_grounding(
        _standardised(objects, mean, std), questions, epochs=params.epochs, lr=params.lr,
        batch_size=params.batch_size, seed=seed,
    )  # fmt: skip
    objects, questions = ask(test, params)
    chosen = chosen_boxes(head, _standardised(objects, mean, std), questions)
    return {
        "protocol": "grounding",
        **grounding_accuracy(chosen, questions),
        "chance": chance(objects, questions),
        "sentences": len(questions.target),
    }


def _standardised(objects: "SceneObjects", mean: "Tensor", std: "Tensor") -> "SceneObjects":
    return replace(objects, feature=(objects.feature - mean) / std * objects.valid[..., None])

"""Batches, groups, tokens and the two protocols that keep methods, tasks, encoders and the training loop apart.

Shape legend, used in every annotation of the package (lower case in annotations, upper case in locals):
``b`` batch, ``n`` points per cloud, ``m`` other points, ``g`` groups, ``k`` neighbours per group, ``t`` tokens,
``v`` visible tokens, ``h`` hidden tokens, ``c``, ``d`` channels; for scenes ``p`` packed points, ``s`` scenes,
``q`` queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Losses = dict[str, Tensor]
"""Scalars of one step; the key ``loss`` is what is minimised, all others are only logged."""


def sent(value: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; a GPU gets it by way of pinned memory, so that the host need not wait."""
    if device.type == "cuda" and value.device.type == "cpu":
        value = value.pin_memory()
    return value.to(device, non_blocking=True)


@dataclass(frozen=True)
class PointBatch:
    """A batch of clouds with the same number of points.

    Attributes:
        coord: Coordinates in the object frame (+Z up), units of the bounding sphere's radius.
        label: Class per cloud, -1 where unknown.
        row: Row of each cloud in the store's index.
    """

    coord: Float[Tensor, "b n 3"]
    label: Int[Tensor, " b"]
    row: Int[Tensor, " b"]

    def to(self, device: torch.device) -> "PointBatch":
        """Return the batch on ``device``."""
        return PointBatch(**{name: sent(value, device) for name, value in vars(self).items()})

    def __len__(self) -> int:
        """Number of clouds."""
        return len(self.coord)

    def part(self, start: int, stop: int) -> "PointBatch":
        """Return the clouds from ``start`` on, those from ``stop`` on left out."""
        return PointBatch(coord=self.coord[start:stop], label=self.label[start:stop], row=self.row[start:stop])


@dataclass(frozen=True)
class AlignBatch:
    """Clouds with the vectors that frozen teachers have for them; a row of zeros where a teacher has none.

    Attributes:
        points: The clouds.
        text: Unit vector of one caption per cloud.
        has_text: Which clouds have a caption.
        text_id: Equal numbers mean the same sentence; -1 where there is none.
        images: Teacher -> unit vector of one view per cloud, the same view for all teachers.
        has_image: Teacher -> which clouds have that view.
    """

    points: PointBatch
    text: Float[Tensor, "b d"]
    has_text: Bool[Tensor, " b"]
    text_id: Int[Tensor, " b"]
    images: Mapping[str, Float[Tensor, "b _"]]
    has_image: Mapping[str, Bool[Tensor, " b"]]

    def to(self, device: torch.device) -> "AlignBatch":
        """Return the batch on ``device``."""
        return AlignBatch(
            points=self.points.to(device),
            text=sent(self.text, device),
            has_text=sent(self.has_text, device),
            text_id=sent(self.text_id, device),
            images={name: sent(value, device) for name, value in self.images.items()},
            has_image={name: sent(value, device) for name, value in self.has_image.items()},
        )

    def __len__(self) -> int:
        """Number of clouds."""
        return len(self.points)

    def part(self, start: int, stop: int) -> "AlignBatch":
        """Return the clouds from ``start`` on, those from ``stop`` on left out."""
        return AlignBatch(
            points=self.points.part(start, stop),
            text=self.text[start:stop],
            has_text=self.has_text[start:stop],
            text_id=self.text_id[start:stop],
            images={name: value[start:stop] for name, value in self.images.items()},
            has_image={name: value[start:stop] for name, value in self.has_image.items()},
        )


@dataclass(frozen=True)
class SceneBatch:
    """Scenes of different sizes, packed one after the other.

    Attributes:
        coord: Metres, +Z up, every scene in its own frame.
        color: Red, green, blue in [0, 1]; encoders bring it to the range they were trained with.
        normal: Unit normals, 0 where unknown.
        offset: Where each scene ends, the cumulative numbers of points.
        segment: Class per point, -1 where unknown or ignored.
        instance: Instance per point, unique inside a scene, -1 where there is none.
        row: Row of each scene in the store's index.
    """

    coord: Float[Tensor, "p 3"]
    color: Float[Tensor, "p 3"]
    normal: Float[Tensor, "p 3"]
    offset: Int[Tensor, " s"]
    segment: Int[Tensor, " p"]
    instance: Int[Tensor, " p"]
    row: Int[Tensor, " s"]

    def to(self, device: torch.device) -> "SceneBatch":
        """Return the batch on ``device``."""
        return SceneBatch(**{name: sent(value, device) for name, value in vars(self).items()})

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.offset)

    def part(self, start: int, stop: int) -> "SceneBatch":
        """Return the scenes from ``start`` on, those from ``stop`` on left out."""
        first, last = ([0, *self.offset.tolist()][place] for place in (start, stop))
        values = {name: value[first:last] for name, value in vars(self).items() if name not in {"offset", "row"}}
        return SceneBatch(**values, offset=self.offset[start:stop] - first, row=self.row[start:stop])


@dataclass(frozen=True)
class DetectionBatch:
    """Scenes with equally many points and the boxes of their objects.

    Attributes:
        coord: Metres, +Z up, every scene in its own frame.
        color: Red, green, blue in [0, 1]; encoders bring it to the range they were trained with.
        normal: Unit normals, 0 where unknown.
        height: Metres above the scene's floor (see ``data/detection_batches.py``).
        boxes: Centre, full lengths and heading (radians, counter-clockwise seen from above); 0 where padded.
        label: Class per box, -1 where padded.
        votes: Offsets from a point to the centres of up to three objects it belongs to, repeated where there are
            fewer, 0 outside of objects.
        on_object: Which points belong to an object.
        row: Row of each scene in the store's index.
    """

    coord: Float[Tensor, "b n 3"]
    color: Float[Tensor, "b n 3"]
    normal: Float[Tensor, "b n 3"]
    height: Float[Tensor, "b n"]
    boxes: Float[Tensor, "b m 7"]
    label: Int[Tensor, "b m"]
    votes: Float[Tensor, "b n 3 3"]
    on_object: Bool[Tensor, "b n"]
    row: Int[Tensor, " b"]

    def to(self, device: torch.device) -> "DetectionBatch":
        """Return the batch on ``device``."""
        return DetectionBatch(**{name: sent(value, device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class BoxPredictions:
    """Boxes that a detector proposes for every scene, the same number each.

    Attributes:
        boxes: Centre, full lengths and heading.
        probability: Score of every class in [0, 1].
        objectness: Probability that there is an object.
    """

    boxes: Float[Tensor, "b q 7"]
    probability: Float[Tensor, "b q c"]
    objectness: Float[Tensor, "b q"]


@runtime_checkable
class Detector(Protocol):
    """What the detection task knows of a detector (always an ``nn.Module``)."""

    def __call__(self, batch: DetectionBatch) -> Losses:
        """Return the losses of one batch."""

    def predict(self, batch: DetectionBatch) -> BoxPredictions:
        """Propose boxes; boxes, labels and votes of the batch are not looked at."""


@dataclass(frozen=True)
class SceneViews:
    """Two differently changed views of every scene.

    Attributes:
        scenes: Both views of S scenes, as 2 S scenes; those of a scene stand side by side.
        place: Where each point was before its view was changed; what two views have in common.
    """

    scenes: SceneBatch
    place: Float[Tensor, "p 3"]

    def to(self, device: torch.device) -> "SceneViews":
        """Return the views on ``device``."""
        return SceneViews(scenes=self.scenes.to(device), place=sent(self.place, device))

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.scenes) // 2

    def part(self, start: int, stop: int) -> "SceneViews":
        """Return both views of the scenes from ``start`` on, those from ``stop`` on left out."""
        ends = [0, *self.scenes.offset.tolist()]
        return SceneViews(
            scenes=self.scenes.part(2 * start, 2 * stop), place=self.place[ends[2 * start] : ends[2 * stop]]
        )


@dataclass(frozen=True)
class SceneLevel:
    """Features at one resolution of packed scenes.

    Attributes:
        coord: Where the features are, metres in the scene's frame.
        feature: One vector per place.
        offset: Where each scene ends.
    """

    coord: Float[Tensor, "p 3"]
    feature: Float[Tensor, "p c"]
    offset: Int[Tensor, " s"]


@runtime_checkable
class SceneEncoder(Protocol):
    """What methods and tasks know of a scene encoder (always an ``nn.Module``)."""

    @property
    def dims(self) -> Sequence[int]:
        """Feature width per level, finest first."""

    @property
    def voxel_size(self) -> float:
        """Edge in metres of the voxels of which a batch has at most one point each."""

    def __call__(self, scenes: SceneBatch) -> list[SceneLevel]:
        """Return the decoder's levels, finest first."""

    def spread(
        self, levels: list[SceneLevel], coord: Float[Tensor, "q 3"], offset: Int[Tensor, " s"]
    ) -> Float[Tensor, "q d"]:
        """Return the features of all levels, concatenated finest first, at any points of the same scenes."""


@dataclass(frozen=True)
class Groups:
    """One level of local patches.

    Attributes:
        centers: Coordinates of the patch centres.
        neighborhood: Coordinates of the patch points relative to their centre.
        index: Which points of the finer level form each patch.
    """

    centers: Float[Tensor, "b g 3"]
    neighborhood: Float[Tensor, "b g k 3"]
    index: Int[Tensor, "b g k"]


@dataclass(frozen=True)
class Tokens:
    """Encoded patches of one level.

    Attributes:
        tokens: Features of the patches that were encoded.
        centers: Where those patches are.
        summary: Output at the class token, None where the encoder has none.
        valid: Which slots hold a token, the others are padding: clouds may show different numbers of patches. None
            means all of them.
    """

    tokens: Float[Tensor, "b t c"]
    centers: Float[Tensor, "b t 3"]
    summary: Float[Tensor, "b c"] | None = None
    valid: Bool[Tensor, "b t"] | None = None


@runtime_checkable
class Encoder(Protocol):
    """What methods and tasks know of an object encoder (always an ``nn.Module``)."""

    @property
    def dims(self) -> Sequence[int]:
        """Token width per level, finest first."""

    @property
    def global_dim(self) -> int:
        """Width of ``pool``'s output."""

    def group(self, coord: Float[Tensor, "b n 3"]) -> list[Groups]:
        """Cut clouds into patches, finest level first; apart from ``forward`` so that a method can choose masks."""

    def __call__(self, groups: list[Groups], masks: list[Bool[Tensor, "b g"]] | None = None) -> list[Tokens]:
        """Encode the patches that ``masks`` (True = hidden) leaves visible."""

    def pool(self, tokens: list[Tokens]) -> Float[Tensor, "b d"]:
        """Reduce tokens to one vector per cloud."""


@runtime_checkable
class Batch(Protocol):
    """What the training loop knows of a batch."""

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on ``device``."""


@runtime_checkable
class Divisible(Batch, Protocol):
    """A batch of which several processes can have a part each."""

    def __len__(self) -> int:
        """Number of clouds or scenes."""

    def part(self, start: int, stop: int) -> "Batch":
        """Return those from ``start`` on, without those from ``stop`` on."""


@runtime_checkable
class Trainable(Protocol):
    """What the training loop knows of a method or a task (always an ``nn.Module``)."""

    def __call__(self, batch: Any) -> Losses:
        """Return the losses of one batch."""


@runtime_checkable
class FollowsSteps(Protocol):
    """A method with something to do after every update of its weights, such as moving a teacher along."""

    def after_step(self) -> None:
        """Follow the weights, which have just been updated."""


@dataclass(frozen=True)
class Reconstruction:
    """What a method sees of clouds and what it makes of the rest.

    Attributes:
        visible: Which points the encoder saw.
        points: Predicted points, in the clouds' coordinates.
    """

    visible: Bool[Tensor, "b n"]
    points: Float[Tensor, "b m 3"]


@runtime_checkable
class PretrainingMethod(Trainable, Protocol):
    """What stage ``pretrain`` knows of a method that learns from points alone (always an ``nn.Module``)."""

    @property
    def encoder(self) -> Encoder:
        """What is pre-trained."""

    def reconstruct(self, coord: Float[Tensor, "b n 3"]) -> Reconstruction:
        """Hide a part of clouds and fill it in, for looking at."""


@runtime_checkable
class SceneMethod(Trainable, Protocol):
    """What stage ``pretrain`` knows of a method that learns from scenes alone (always an ``nn.Module``)."""

    @property
    def encoder(self) -> SceneEncoder:
        """What is pre-trained."""

    def look(self, scenes: SceneBatch) -> dict[str, Tensor]:
        """Return what people want to see of scenes: one value or colour per point, or points of its own.

        Keys: ``statistic`` (p,), ``visible`` (p,), ``pca`` (p, 3) uint8, ``reconstruction`` (any number, 3).
        """


def as_module(trainable: object) -> nn.Module:
    """Return an encoder, method or task as the ``nn.Module`` it is.

    Raises:
        TypeError: It is no ``nn.Module``.
    """
    if not isinstance(trainable, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(trainable).__name__}")
    return trainable

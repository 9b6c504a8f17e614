"""Faces and edges of boxes, which H3DNet looks for beside the objects (Zhang et al., 2020, section 3)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointloom.models.seeds import Seeds
from pointloom.models.votenet_loss import squared_distances
from pointloom.ops import gather_points
from pointloom.ops.boxes import along_box, box_places
from pointloom.structures import DetectionBatch

FACES = ((0, 0, 1), (0, 0, -1), (0, 1, 0), (0, -1, 0), (1, 0, 0), (-1, 0, 0))
EDGES = tuple(
    (x, y, z) for z in (1, -1, 0) for y in (1, -1, 0) for x in (1, -1, 0) if (x, y, z).count(0) == 1
)  # fmt: skip
NEAR = 0.2
"""Metres; a point that is nearer belongs to a face, one that is nearer to two faces to their edge (code)."""

KINDS = {"level": 2, "upright": 1, "edge": 0}
"""Kind of part -> numbers that say its size: both lengths of a level face, the height of an upright one."""


@dataclass(frozen=True)
class PartTargets:
    """To which part of its object's box every seed belongs.

    Attributes:
        known: Whether it belongs to one.
        center: Middle of the part, metres.
        size: Of the part, metres.
        label: Class of the object.
    """

    known: Bool[Tensor, "b t"]
    center: Float[Tensor, "b t 3"]
    size: Float[Tensor, "b t _"]
    label: Int[Tensor, "b t"]


def face_centers(boxes: Float[Tensor, "b q 7"]) -> Float[Tensor, "b q 6 3"]:
    """Return the middles of top, bottom and the four sides."""
    return box_places(boxes, boxes.new_tensor(FACES))


def edge_centers(boxes: Float[Tensor, "b q 7"]) -> Float[Tensor, "b q 12 3"]:
    """Return the middles of all edges."""
    return box_places(boxes, boxes.new_tensor(EDGES))


def part_targets(seeds: Seeds, batch: DetectionBatch) -> dict[str, PartTargets]:
    """Return for every kind of part to which one the seeds belong: the nearest of their box.

    Note:
        The official code finds faces among an object's points (at least 100 near a side of the box, edges at least 10)
        and puts their middle where the points are; here they are the box's, and a point near two of them belongs to
        the nearer one, there to the one that is looked at last.
    """
    vote = gather_points(batch.votes[:, :, 0], seeds.index)
    index = squared_distances(seeds.coord + vote, batch).argmin(-1)
    boxes, label = gather_points(batch.boxes, index), batch.label.gather(1, index).clamp_min(0)
    on_object = batch.on_object.gather(1, seeds.index)
    faces, edges = boxes.new_tensor(FACES), boxes.new_tensor(EDGES)
    local = along_box(seeds.coord, boxes)
    to_face = (boxes[..., 3:6] / 2 @ faces.abs().T - local @ faces.T).abs()
    to_edge = torch.where(edges @ faces.T > 0, to_face.unsqueeze(2), 0.0).amax(-1)
    parts = {
        "level": (to_face[..., :2], face_centers(boxes)[:, :, :2], boxes[..., 3:5]),
        "upright": (to_face[..., 2:], face_centers(boxes)[:, :, 2:], boxes[..., 5:6]),
        "edge": (to_edge, edge_centers(boxes), boxes[..., :0]),
    }
    targets = {}
    for kind, (distance, centers, size) in parts.items():
        nearest, which = distance.min(-1)
        center = centers.gather(2, which[..., None, None].expand(-1, -1, 1, 3)).squeeze(2)
        targets[kind] = PartTargets(known=on_object & (nearest < NEAR), center=center, size=size, label=label)
    return targets

"""Teachers and students: how well an encoder's neighbourhoods agree with those of the teachers, on test objects."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointloom.data.features import FeatureStore
from pointloom.report.families import held_out
from pointloom.report.inputs import ReportInputs, ResultRecord
from pointloom.report.retrieval import Gallery, load_gallery
from pointloom.report.similarity import NEIGHBORS, linear_cka, neighbor_overlap
from pointloom.report.summary import in_order

FEWEST = NEIGHBORS + 2

Row = dict[str, Any]


@dataclass(frozen=True)
class Space:
    """Unit vectors of some objects.

    Attributes:
        row: (T,) rows in the prepared store, ascending.
        vector: (T, D) unit vectors.
    """

    row: NDArray[np.int64]
    vector: NDArray[np.float64]


def similarity_blocks(inputs: ReportInputs, *, limit: int, seed: int) -> list[Row]:
    """Return, per set of features, how well every encoder and every teacher agrees with each teacher.

    Neighbours are by cosine. A teacher's vector of an object is the mean of its views, or its best caption; an
    encoder's features are standardised on the training objects, as for retrieval.

    Args:
        inputs: Everything the report is made from.
        limit: Largest number of test objects; a seeded choice is made above it.
        seed: Seed of that choice.
    """
    blocks = []
    students = [(_header(result), space) for result, space in _students(inputs)]
    for name, features in inputs.families.features.items():
        rows = held_out(inputs.store.splits)
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:limit])
        teachers = {teacher.name: _teacher_space(features, teacher.name, rows) for teacher in features.info.teachers}
        described = [(_teacher_row(features, teacher), space) for teacher, space in teachers.items()]
        found = [
            header | {"agreement": [_agreement(space, other) for other in teachers.values()]}
            for header, space in [*students, *described]
        ]
        if any(cell for row in found for cell in row["agreement"]):
            blocks.append({"name": name, "teachers": list(teachers), "neighbors": NEIGHBORS, "rows": found})
    return blocks


def _agreement(first: Space, second: Space) -> Row | None:
    """Compare two spaces on the objects that both have; None for too few, or for a teacher with itself."""
    shared, here, there = np.intersect1d(first.row, second.row, return_indices=True)
    if first is second or len(shared) < FEWEST:
        return None
    one, other = first.vector[here], second.vector[there]
    return {
        "overlap": 100 * neighbor_overlap(one, other, count=NEIGHBORS),
        "chance": 100 * NEIGHBORS / (len(shared) - 1),
        "cka": linear_cka(one, other),
        "objects": len(shared),
    }


def _students(inputs: ReportInputs) -> list[tuple[ResultRecord, Space]]:
    """Return the frozen features of all probed encoders, and of aligned encoders that were not probed."""
    row_of = {uid: row for row, uid in enumerate(inputs.store.uids.tolist())}
    results = dict(inputs.probe)
    probed = {result.encoder.get("sha256") for result in results.values()}
    for name, index in inputs.families.indices.items():
        result = inputs.align.get(name)
        if result and result.encoder.get("sha256") not in probed:
            feature = index.rows(np.arange(len(index)), name="feature")
            arrays = {"uid": index.uids, "split": index.splits, "label": index.labels, "feature": feature}
            results[f"align {name}"] = replace(result, features=arrays)
    galleries = [(result, load_gallery(result, limit=len(row_of), seed=0)) for result in in_order(results)]
    return [(result, _as_space(gallery, row_of)) for result, gallery in galleries if gallery]


def _as_space(gallery: Gallery, row_of: dict[str, int]) -> Space:
    pairs = [(row_of[uid], at) for at, uid in enumerate(gallery.uid.tolist()) if uid in row_of]
    rows, at = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T
    return Space(rows, gallery.feature[at])


def _teacher_space(features: FeatureStore, name: str, rows: NDArray[np.int64]) -> Space:
    """Return a teacher's vectors of rows of the prepared store; features are in the order of the store."""
    if features.teacher(name).modality == "text":
        vector, present = features.read_text(name, rows, np.zeros_like(rows))
        return Space(rows[present], vector[present].astype(np.float64))
    found = features.images(name)
    usable = found.present[rows]
    value = np.where(usable[..., None], found.value[rows].astype(np.float64), 0)
    mean = value.sum(axis=1)
    length = np.linalg.norm(mean, axis=1)
    kept = length > 0
    return Space(rows[kept], mean[kept] / length[kept, None])


def _header(result: ResultRecord) -> Row:
    return {
        "name": result.name,
        "kind": "encoder",
        "model": result.encoder.get("builder", "?"),
        "method": result.encoder.get("method", "?"),
        "trained": result.trained,
        "labels": result.encoder.get("labels", "none"),
    }


def _teacher_row(features: FeatureStore, name: str) -> Row:
    teacher = features.teacher(name)
    return {
        "name": name,
        "kind": "teacher",
        "model": teacher.model,
        "modality": teacher.modality,
        "source": teacher.source,
    }

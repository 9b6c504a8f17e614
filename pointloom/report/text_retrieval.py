"""Text to shape: class names and captions of test objects as queries, ranked test objects as answers, with pictures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointloom.data.features import FeatureStore
from pointloom.data.shape_index import ShapeIndex
from pointloom.report.families import held_out
from pointloom.report.gallery import title_of
from pointloom.report.inputs import ReportInputs
from pointloom.report.pictures import Pictures
from pointloom.report.retrieval import varied_choice

ANSWERS = 5

Row = dict[str, Any]


@dataclass(frozen=True)
class TextQuery:
    """Words to search for.

    Attributes:
        kind: ``class`` for a class name with its prompts averaged, ``caption`` for the caption of a test object.
        text: The words.
        vector: (D,) unit vector of the text teacher.
        right: (T,) which of the searched objects are right: those of the class, or with the same best caption.
    """

    kind: str
    text: str
    vector: NDArray[np.float32]
    right: NDArray[np.bool_]


def text_query_rows(inputs: ReportInputs, pictures: Pictures, *, count: int, seed: int) -> dict[str, list[Row]]:
    """Return, per aligned encoder, text queries with their five best test objects.

    Half of the queries are class names and half are captions, drawn with a seed, never chosen by how well they do.

    Args:
        inputs: Everything the report is made from.
        pictures: Of the objects.
        count: Number of queries.
        seed: Of their choice.
    """
    found = {}
    for name, index in inputs.families.indices.items():
        features = inputs.families.features_with(index.info.features_digest)
        if features is None or features.info.dataset_digest != inputs.store.info.digest:
            continue
        rows = held_out(index.splits)
        embedding = index.rows(rows)
        queries = _class_queries(index, features, rows, count=count - count // 2, seed=seed)
        queries += _caption_queries(index, features, rows, count=count - len(queries), seed=seed + 1)
        if queries:
            uids = index.uids[rows]
            found[name] = [_answer(inputs, pictures, query, embedding @ query.vector, uids) for query in queries]
    return found


def _class_queries(
    index: ShapeIndex, features: FeatureStore, rows: NDArray[np.int64], *, count: int, seed: int
) -> list[TextQuery]:
    labels = index.labels[rows]
    present = np.unique(labels[labels >= 0])
    chosen = np.random.default_rng(seed).permutation(present)[:count].tolist()
    vectors = features.class_text(index.info.text_teacher)
    return [TextQuery("class", features.info.classes[c], vectors[c], labels == c) for c in chosen]


def _caption_queries(
    index: ShapeIndex, features: FeatureStore, rows: NDArray[np.int64], *, count: int, seed: int
) -> list[TextQuery]:
    teacher, uids = index.info.text_teacher, index.uids[rows]
    own = np.array([features.row_of[uid] for uid in uids.tolist()], dtype=np.int64)
    sentence = features.text(teacher).text_id[own, 0]
    described = np.flatnonzero(sentence >= 0)
    chosen = described[varied_choice(index.labels[rows][described], count=count, seed=seed)]
    vectors, _ = features.read_text(teacher, own[chosen], np.zeros_like(chosen))
    return [
        TextQuery("caption", features.texts(uid)[0], vector, sentence == sentence[at])
        for uid, at, vector in zip(uids[chosen].tolist(), chosen.tolist(), vectors, strict=True)
    ]


def _answer(
    inputs: ReportInputs, pictures: Pictures, query: TextQuery, score: NDArray[np.float32], uids: NDArray[np.str_]
) -> Row:
    order = np.argsort(-score, kind="stable")
    ranks = 1 + np.flatnonzero(query.right[order])
    cells = [
        {
            "uid": uid,
            "title": title_of(inputs.store, uid),
            "image": pictures.of(uid),
            "cosine": float(score[at]),
            "right": bool(query.right[at]),
        }
        for at, uid in zip(order[:ANSWERS].tolist(), uids[order[:ANSWERS]].tolist(), strict=True)
    ]
    return {
        "kind": query.kind,
        "text": query.text,
        "first_right": int(ranks[0]),
        "num_right": len(ranks),
        "searched": len(score),
        "answers": cells,
    }

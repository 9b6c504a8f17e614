import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pointloom.data.shape_index import IndexInfo, ShapeIndex, nearest_rows, write_index
from pointloom.errors import DataError

INFO = IndexInfo(
    encoder_sha256="e", dataset_digest="d", features_digest="f", text_teacher="words", features="../../data/features/x"
)


def unit(feature: np.ndarray) -> np.ndarray:
    return (feature / np.linalg.norm(feature, axis=1, keepdims=True)).astype(np.float32)


def write(folder: Path, embedding: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    count = len(embedding)
    names, splits = np.array([f"o{i}" for i in range(count)]), np.array(["train", "test"])[np.arange(count) % 2]
    feature = np.zeros((count, 2), dtype=np.float32)
    write_index(folder, INFO, uid=names, split=splits, label=np.arange(count) % 3, embedding=embedding, feature=feature)
    return folder


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_ranking_does_not_depend_on_the_size_of_the_blocks(tmp_path: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    embedding = unit(rng.normal(size=(200, 6)))
    embedding[50] = embedding[120] = embedding[7]  # ties
    index = ShapeIndex(write(tmp_path / "index", embedding))
    allowed = index.splits == "test"
    query = embedding[7]
    expected = sorted(np.flatnonzero(allowed).tolist(), key=lambda row: (-(embedding[row] @ query), row))[:9]
    found, scores = nearest_rows(index.blocks(rows), query, allowed=allowed, top=9)
    assert found.tolist() == expected
    np.testing.assert_allclose(scores, embedding[expected] @ query, atol=1e-6)
    assert index.search(query, allowed=allowed, top=9)[0].tolist() == expected


def test_ties_at_the_last_place_go_to_the_first_rows() -> None:
    blocks = [np.ones((5, 1), dtype=np.float32)] * 3
    found, _ = nearest_rows(blocks, np.ones(1, dtype=np.float32), allowed=np.ones(15, dtype=bool), top=3)
    assert found.tolist() == [0, 1, 2]


def test_fewer_objects_than_asked_for_are_all_returned(tmp_path: Path) -> None:
    index = ShapeIndex(write(tmp_path / "index", np.eye(4, dtype=np.float32)))
    found, _ = index.search(np.eye(4, dtype=np.float32)[2], allowed=np.ones(4, dtype=bool), top=10)
    assert found[0] == 2
    assert sorted(found.tolist()) == [0, 1, 2, 3]


def test_half_precision_and_an_index_written_compressed_are_read_alike(tmp_path: Path) -> None:
    embedding = unit(np.random.default_rng(1).normal(size=(30, 4)))
    folder = write(tmp_path / "index", embedding)
    with np.load(folder / "index.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez_compressed(folder / "index.npz", **(arrays | {"embedding": embedding.astype(np.float16)}))
    (block,) = ShapeIndex(folder).blocks()
    assert block.dtype == np.float32
    np.testing.assert_allclose(block, embedding, atol=1e-3)


def test_rows_come_in_the_order_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointloom.data.shape_index.BLOCK_ROWS", 7)
    embedding = unit(np.random.default_rng(1).normal(size=(30, 4)))
    index = ShapeIndex(write(tmp_path / "index", embedding))
    rows = np.array([29, 3, 3, 14, 0])
    np.testing.assert_array_equal(index.rows(rows), embedding[rows])


def test_search_needs_the_memory_of_a_few_blocks_not_of_all_embeddings(tmp_path: Path) -> None:
    embedding = unit(np.random.default_rng(2).normal(size=(40_000, 64)))
    index = ShapeIndex(write(tmp_path / "index", embedding))
    allowed = np.ones(len(index), dtype=bool)
    tracemalloc.start()
    nearest_rows(index.blocks(1000), embedding[5], allowed=allowed, top=5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < embedding.nbytes / 5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "index.json").unlink(), "no search index here"),
        (lambda folder: (folder / "index.json").write_text("{"), "cannot be used"),
        (lambda folder: (folder / "index.json").write_text(json.dumps({"format": 9})), "format 9, expected 1"),
        (lambda folder: (folder / "index.npz").write_bytes(b"PK no"), "cannot be used"),
        (lambda folder: np.savez(folder / "index.npz", uid=np.array(["a"])), "cannot be used"),
    ],
)
def test_damaged_index_says_what_to_run(tmp_path: Path, damage: object, message: str) -> None:
    folder = write(tmp_path / "index", np.eye(4, dtype=np.float32))
    damage(folder)  # type: ignore[operator]
    with pytest.raises(DataError, match=message) as caught:
        ShapeIndex(folder)
    assert "pointloom align" in str(caught.value)


def test_missing_rows_and_a_query_of_another_space_are_errors(tmp_path: Path) -> None:
    folder = write(tmp_path / "index", np.eye(4, dtype=np.float32))
    allowed = np.ones(4, dtype=bool)
    with pytest.raises(DataError, match="4 values, the query has 3"):
        ShapeIndex(folder).search(np.ones(3, dtype=np.float32), allowed=allowed, top=1)
    with np.load(folder / "index.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(folder / "index.npz", **(arrays | {"embedding": np.eye(4, dtype=np.float32)[:3]}))
    with pytest.raises(DataError, match="3 rows of embedding for 4 objects"):
        ShapeIndex(folder).search(np.ones(4, dtype=np.float32), allowed=allowed, top=1)

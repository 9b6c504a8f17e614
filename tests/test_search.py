"""``pointloom search``: what a user types, sees and gets wrong."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import pointloom
from pointloom.cli import cli
from pointloom.data.shape_index import IndexInfo, ShapeIndex, write_index
from pointloom.data.shards import ObjectStore
from pointloom.encoder import load_encoder
from pointloom.errors import DataError, ParamsError, PointloomError, WorkspaceError
from pointloom.methods.align import Align, load_heads, save_heads
from pointloom.models import build_encoder
from pointloom.shape_search import find, open_gallery
from pointloom.train.checkpoint import save_encoder
from tests.report.fixtures import write_dataset
from tests.report.multimodal_fixtures import (
    TEXT_DIM,
    bag_of_words,
    captions_of,
    write_captions_of,
    write_features_of,
    write_views_of,
)


def write_encoder_with_heads(folder: Path, *, features_digest: str) -> str:
    torch.manual_seed(0)
    encoder = build_encoder("point_mae_tiny")
    align = Align(
        encoder, text_dim=TEXT_DIM, image_dims={"shade": 8}, per_teacher_temperature=False, multi_positive=False
    )
    card = save_encoder(
        folder, encoder, builder="point_mae_tiny", builder_args={}, method="align", labels="captions", num_points=64,
        data_digest=None, params={},
    )  # fmt: skip
    save_heads(folder, align, text_teacher="words", encoder_sha256=card.weights_sha256, features_digest=features_digest)
    return card.weights_sha256


def write_search_workspace(root: Path, *, views: bool = True) -> Path:
    """Six classes of ten objects, indexed by their captions (odd rows) or by the encoder (even rows)."""
    objects = root / "data" / "objects"
    write_dataset(objects, train=6, test=4, num_points=128, labelled=True, failures=False)
    (root / "workspace.yaml").write_text("source: shapes\n", encoding="utf-8")
    store = ObjectStore(objects)
    digest = write_views_of(store, root / "data" / "views" / "twelve") if views else "none"
    captions = write_captions_of(store, root / "data" / "captions" / "offline", views_digest=digest)
    features = write_features_of(
        store, root / "data" / "features" / "offline", views_digest=digest, captions_digest=captions
    )
    weights = write_encoder_with_heads(root / "models" / "align", features_digest=features)
    text, sentences = bag_of_words(store), captions_of(store)
    words = text.encode_text([sentences[uid][0].text if sentences[uid] else "" for uid in store.uids.tolist()])
    words[0] = _embedded(root / "models" / "align", store.coords(np.array([0]), 64)[0])
    embedding = (words / np.maximum(np.linalg.norm(words, axis=1, keepdims=True), 1e-9)).astype(np.float32)
    info = IndexInfo(weights, store.info.digest, features, "words", "../../../data/features/offline")
    folder = root / "results" / "align" / "align"
    folder.mkdir(parents=True)
    write_index(
        folder, info, uid=store.uids, split=store.splits, label=store.labels, embedding=embedding,
        feature=np.zeros((len(store), 2), dtype=np.float32),
    )  # fmt: skip
    return root


def _embedded(encoder: Path, coord: np.ndarray) -> np.ndarray:
    heads, _ = load_heads(encoder)
    with torch.inference_mode():
        return heads.embed(torch.from_numpy(load_encoder(encoder, device="cpu").encode(coord)))[0].numpy()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_search_workspace(tmp_path_factory.mktemp("search"))


@pytest.fixture
def own(workspace: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(workspace, tmp_path / "own"))


def test_words_find_objects_whose_captions_hold_them_in_the_order_of_the_cosine(workspace: Path) -> None:
    hits = pointloom.search("a green sofa", workspace=workspace, top=8)
    store, captions = (
        ObjectStore(workspace / "data" / "objects"),
        captions_of(ObjectStore(workspace / "data" / "objects")),
    )
    text = bag_of_words(store)
    (query,) = text.encode_text(["a green sofa"])
    index = ShapeIndex(workspace / "results" / "align" / "align")
    cosine = index.rows(np.arange(len(index))) @ (query / np.linalg.norm(query))
    assert [hit.uid for hit in hits] == store.uids[np.argsort(-cosine, kind="stable")[:8]].tolist()
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(cosine)[::-1][:8], atol=1e-5)
    assert "green sofa" in captions[hits[0].uid][0].text
    assert [hit.rank for hit in hits] == list(range(1, 9))
    assert (hits[0].category, hits[0].captions[0]) == ("sofa", captions[hits[0].uid][0].text)
    assert hits[0].path == str(workspace / "shapes" / "sofa" / f"{hits[0].uid}.glb")


@pytest.mark.parametrize("split", ["train", "test"])
def test_split_limits_what_is_found(workspace: Path, split: str) -> None:
    hits = pointloom.search("table", workspace=workspace, split=split, top=100)
    assert {hit.split for hit in hits} == {split}
    assert len(hits) == {"train": 36, "test": 24}[split]


def test_a_file_is_read_and_encoded_as_prepare_and_encode_do(workspace: Path, tmp_path: Path) -> None:
    store = ObjectStore(workspace / "data" / "objects")
    file = tmp_path / "turned.npy"
    np.save(file, store.coords(np.array([0]))[0] * 7 + 3)
    hits = pointloom.search(like=file, workspace=workspace, top=3)
    assert hits[0].uid == store.uids[0]
    assert hits[0].score > 0.99


def test_command_prints_a_table_and_writes_a_page_that_loads_nothing(workspace: Path, tmp_path: Path) -> None:
    arguments = ["search", "red chair", "--in", str(workspace), "--top", "5", "--output", str(tmp_path / "found")]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert len(lines) == 7
    assert re.match(r" *1 +[01]\.\d{3}  chair", lines[1])
    assert lines[-1] == f"Page: {tmp_path / 'found' / 'search.html'}"
    page = (tmp_path / "found" / "search.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 5
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert "“red chair”" in page
    content = json.loads((tmp_path / "found" / "search.json").read_text(encoding="utf-8"))
    assert [hit["rank"] for hit in content["hits"]] == [1, 2, 3, 4, 5]
    assert (content["index"], content["labels"], content["searched"]) == ("align", "captions", 60)
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["search.html", "search.json"]


def test_json_on_the_terminal_is_the_json_of_the_file(workspace: Path, tmp_path: Path) -> None:
    arguments = ["search", "vase", "--in", str(workspace), "--json", "--output", str(tmp_path)]
    done = CliRunner().invoke(cli, arguments)
    assert json.loads(done.stdout) == json.loads((tmp_path / "search.json").read_text(encoding="utf-8"))


def test_page_goes_to_the_workspace_and_shows_the_query_shape(own: Path, tmp_path: Path) -> None:
    file = tmp_path / "My Shape.xyz"
    np.savetxt(file, ObjectStore(own / "data" / "objects").coords(np.array([3]))[0])
    done = CliRunner().invoke(cli, ["search", "--like", str(file), "--in", str(own), "--top", "2"])
    assert done.exit_code == 0, done.output
    page = (own / "search" / "my-shape-xyz" / "search.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3
    assert "Shapes like My Shape.xyz" in page


def test_pictures_are_points_where_views_are_gone(own: Path, tmp_path: Path) -> None:
    pages = []
    for name in ("with", "without"):
        CliRunner().invoke(cli, ["search", "lamp", "--in", str(own), "--top", "1", "--output", str(tmp_path / name)])
        pages.append((tmp_path / name / "search.html").read_text(encoding="utf-8"))
        shutil.rmtree(own / "data" / "views", ignore_errors=True)
    assert all(page.count("data:image/png;base64,") == 1 for page in pages)
    assert pages[0] != pages[1]


def test_captions_and_queries_cannot_break_the_page(workspace: Path, tmp_path: Path) -> None:
    CliRunner().invoke(cli, ["search", "sofa <b>", "--in", str(workspace), "--output", str(tmp_path)])
    page = (tmp_path / "search.html").read_text(encoding="utf-8")
    assert "“sofa &lt;b&gt;”" in page
    assert "on &lt;white&gt; ground" in page


def test_unknown_words_are_named_and_the_others_rank(workspace: Path) -> None:
    found = find(open_gallery(workspace, None), "green Zeppelins, sofa")
    assert found.unknown == ("Zeppelins",)
    assert [hit.uid for hit in found.hits] == [hit.uid for hit in pointloom.search("green sofa", workspace=workspace)]


def test_command_says_which_words_are_unknown(workspace: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["search", "green zeppelin", "--in", str(workspace), "--output", str(tmp_path)])
    assert "does not know zeppelin" in done.stderr
    assert "does not know zeppelin" in (tmp_path / "search.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("chiar", "knows no word of 'chiar'.*similar words that it knows: chair"),
        ("the zeppelin of", "it knows, for example: chair, lamp, mug"),
        ("...", "knows no word"),
        ("   ", "has 0 words"),
        ("sofa " * 300, "has 300 words, expected 1 to 200"),
    ],
)
def test_queries_that_mean_nothing_are_errors_that_help(workspace: Path, query: str, message: str) -> None:
    with pytest.raises(PointloomError, match=message):
        pointloom.search(query, workspace=workspace)


def test_without_classes_examples_are_words_that_tell_something(workspace: Path) -> None:
    gallery = open_gallery(workspace, None)
    gallery.features.info = replace(gallery.features.info, classes=())
    with pytest.raises(DataError, match=r"it knows, for example: (?!.*\b(a|and|of|on|the)\b)[a-z]+, [a-z]+"):
        find(gallery, "zeppelin")


def test_wrong_arguments_are_errors_that_help(workspace: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.glb"
    broken.write_bytes(b"glTF")
    for options, error, message in (
        ({}, ParamsError, "one of the two"),
        ({"query": "sofa", "like": broken}, ParamsError, "one of the two"),
        ({"query": "sofa", "top": 0}, ParamsError, "top is 0"),
        ({"query": "sofa", "split": "tset"}, ParamsError, "expected one of all, train, test"),
        ({"query": "sofa", "index": "aligned"}, WorkspaceError, "no aligned encoder 'aligned'.*did you mean 'align'"),
        ({"like": tmp_path / "nothing.obj"}, DataError, "no such file"),
        ({"like": broken}, DataError, "cannot be used as a query"),
    ):
        with pytest.raises(error, match=message):
            pointloom.search(workspace=workspace, **options)  # type: ignore[arg-type]


def test_workspace_without_an_aligned_encoder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="is no workspace"):
        pointloom.search("sofa", workspace=tmp_path)
    (tmp_path / "workspace.yaml").write_text("source: shapes\n", encoding="utf-8")
    with pytest.raises(WorkspaceError, match="--pipeline multimodal"):
        pointloom.search("sofa", workspace=tmp_path)


def test_several_indices_must_be_told_apart(own: Path) -> None:
    shutil.copytree(own / "results" / "align" / "align", own / "results" / "align" / "other")
    with pytest.raises(WorkspaceError, match="several aligned encoders; choose one with --index: align, other"):
        pointloom.search("sofa", workspace=own)
    assert pointloom.search("sofa", workspace=own, index="align")


def test_of_several_indices_the_first_in_params_is_searched(own: Path) -> None:
    shutil.copytree(own / "results" / "align" / "align", own / "results" / "align" / "a_trial")
    shutil.copytree(own / "models" / "align", own / "models" / "a_trial")
    (own / "params.yaml").write_text("align:\n  not_run_yet: {}\n  align: {}\n  a_trial: {}\n", encoding="utf-8")
    assert find(open_gallery(own, None), "sofa").index == "align"
    assert find(open_gallery(own, "a_trial"), "sofa").index == "a_trial"
    done = CliRunner().invoke(cli, ["search", "sofa", "--in", str(own)])
    assert done.exit_code == 0, done.output
    assert "encoder align" in done.stderr


@pytest.mark.parametrize("key", ["encoder_sha256", "features_digest", "dataset_digest"])
def test_index_older_than_what_it_was_made_from_names_the_stage_to_rerun(own: Path, key: str) -> None:
    path = own / "results" / "align" / "align" / "index.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {key: "0" * 64}), encoding="utf-8")
    with pytest.raises(DataError, match=r"out of date.*dvc repro align@align"):
        pointloom.search("sofa", workspace=own)


def test_projections_of_another_encoder_are_refused(own: Path, tmp_path: Path) -> None:
    path = own / "models" / "align" / "heads.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"encoder_sha256": "0" * 64}), encoding="utf-8")
    file = tmp_path / "cloud.npy"
    np.save(file, np.random.default_rng(0).normal(size=(200, 3)))
    with pytest.raises(DataError, match="from different runs"):
        pointloom.search(like=file, workspace=own)


def test_module_keeps_the_function_whatever_is_imported_first(workspace: Path) -> None:
    import pointloom.shape_search

    assert callable(pointloom.search)
    encoders = {"PretrainedEncoder", "PretrainedSceneEncoder", "load_encoder"}
    assert set(pointloom.__all__) == {"Hit", "__version__", "search"} | encoders

"""Search a workspace's objects by words or by a shape, in the embedding space of an aligned encoder."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointloom.data.features import FeatureStore
from pointloom.data.quarantine import RejectedError
from pointloom.data.shape_index import ShapeIndex
from pointloom.data.shards import ObjectStore
from pointloom.encode import read_shape
from pointloom.encoder import load_object_encoder
from pointloom.errors import DataError, ParamsError, WorkspaceError
from pointloom.methods.align import load_heads
from pointloom.report.album import Album
from pointloom.report.hits import SIZE, Found, Hit, write_hits
from pointloom.report.pictures import Pictures, find_views
from pointloom.stages.read_params import did_you_mean, read_yaml
from pointloom.teachers import open_text_teacher
from pointloom.teachers.offline_text import words_of
from pointloom.train.checkpoint import EncoderCard, read_card
from pointloom.workspace import Workspace, open_workspace

MAX_WORDS = 200
CAPTIONS_SHOWN = 3
EXAMPLES = 12
FILLERS = frozenset({"a", "an", "and", "for", "in", "of", "on", "or", "the", "to", "with"})
"""Words that no search is made with alone."""

SPLITS = ("all", "train", "test")


@dataclass(frozen=True)
class Gallery:
    """An aligned encoder with its index and the data that both were made from, checked to belong together.

    Attributes:
        name: Name of the ``align`` entry.
        workspace: Where everything lies.
        encoder: Folder of the encoder.
        card: What the encoder is.
        index: Embeddings of the objects.
        store: Prepared objects.
        features: Cached teacher features.
    """

    name: str
    workspace: Workspace
    encoder: Path
    card: EncoderCard
    index: ShapeIndex
    store: ObjectStore
    features: FeatureStore


def search(
    query: str | None = None,
    *,
    like: Path | str | None = None,
    workspace: Path | str = ".",
    index: str | None = None,
    split: str = "all",
    top: int = 12,
    up: str | None = None,
) -> list[Hit]:
    """Return the objects of a workspace that fit words, or that are like a shape, best first.

    Args:
        query: Words, such as "a round wooden table".
        like: File of a mesh or point cloud, instead of words.
        workspace: Folder of a workspace whose ``align`` stage has run.
        index: Name of an ``align`` entry; None takes the first one of ``params.yaml``.
        split: Which objects to search: ``all``, ``train`` or ``test``.
        top: Largest number of objects to return.
        up: Up axis of the file, None for the usual one of its format.

    Raises:
        ParamsError: Both or none of ``query`` and ``like``, or a value out of range.
        WorkspaceError: No workspace, or no aligned encoder in it.
        DataError: The index is older than what it was made from, or the query cannot be used.
    """
    return find(open_gallery(workspace, index), query, like=like, split=split, top=top, up=up).hits


def open_gallery(workspace: Path | str, index: str | None) -> Gallery:
    """Open an aligned encoder's index and check that it belongs to the encoder, features and objects beside it.

    Raises:
        WorkspaceError: No workspace, no aligned encoder, or several, none of them named or in ``params.yaml``.
        DataError: The index is older than what it was made from.
    """
    opened = open_workspace(Path(workspace))
    name = _choose_index(opened.folder, index)
    found = ShapeIndex(opened.folder / "results" / "align" / name)
    encoder = opened.folder / "models" / name
    gallery = Gallery(
        name=name,
        workspace=opened,
        encoder=encoder,
        card=read_card(encoder),
        index=found,
        store=ObjectStore(opened.folder / "data" / "objects"),
        features=FeatureStore((found.path / found.info.features).resolve()),
    )
    _check_fresh(gallery)
    return gallery


def find(
    gallery: Gallery,
    query: str | None = None,
    *,
    like: Path | str | None = None,
    split: str = "all",
    top: int = 12,
    up: str | None = None,
) -> Found:
    """Search one index by words or by a shape; arguments and errors as in ``search``."""
    if (query is None) == (like is None):
        raise ParamsError("give words to search for, or a file whose like to search for: one of the two")
    if split not in SPLITS:
        raise ParamsError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    if top < 1:
        raise ParamsError(f"top is {top}, expected at least 1")
    index, cloud = gallery.index, None
    unknown: tuple[str, ...] = ()
    allowed = np.ones(len(index), dtype=bool) if split == "all" else index.splits == split
    if not allowed.any():
        raise DataError(f"{gallery.workspace.folder}: no object has split {split!r}; search another split")
    if query is not None:
        vector, unknown = _embed_words(gallery, query)
    else:
        vector, cloud = _embed_file(gallery, Path(str(like)), up)
    rows, scores = index.search(vector, allowed=allowed, top=top)
    teacher = gallery.features.teacher(index.info.text_teacher)
    return Found(
        query=query.strip() if query is not None else Path(str(like)).name,
        by_shape=query is None,
        index=gallery.name,
        labels=gallery.card.labels,
        text_teacher=index.info.text_teacher,
        model=teacher.model,
        unknown=unknown,
        split=split,
        searched=int(allowed.sum()),
        hits=_hits(gallery, rows, scores),
        cloud=cloud,
    )


def default_folder(gallery: Gallery, found: Found) -> Path:
    """Return where a search's page goes when nobody says: ``search/WORDS`` in the workspace."""
    return (
        gallery.workspace.folder
        / "search"
        / (re.sub(r"[^a-z0-9]+", "-", found.query.lower()).strip("-")[:60] or "query")
    )


def write_page(gallery: Gallery, found: Found, folder: Path) -> Path:
    """Write a search's page and its JSON; pictures are rendered views where they still exist, else points."""
    views = find_views(gallery.workspace.folder / "data", gallery.features.info.views_digest)
    return write_hits(found, folder, Pictures(gallery.store, views, Album(folder=None, size=SIZE)))


def _choose_index(folder: Path, asked: str | None) -> str:
    known = sorted(path.parent.name for path in (folder / "results" / "align").glob("*/index.json"))
    if not known:
        raise WorkspaceError(
            f"{folder} has no aligned encoder to search with (results/align holds no index): run `pointloom run` in a "
            "workspace whose params.yaml has an align section, such as one made by "
            "`pointloom init FOLDER --pipeline multimodal`"
        )
    if asked is not None and asked not in known:
        hint = did_you_mean(asked, known)
        raise WorkspaceError(f"{folder} has no aligned encoder {asked!r}; known: {', '.join(known)}{hint}")
    first = known[0] if len(known) == 1 else next((name for name in _align_entries(folder) if name in known), None)
    if asked is None and first is None:
        raise WorkspaceError(f"{folder} has several aligned encoders; choose one with --index: {', '.join(known)}")
    return asked or str(first)


def _align_entries(folder: Path) -> list[str]:
    """Return the entries of ``params.yaml:align`` in their order, the main one first by habit."""
    file = folder / "params.yaml"
    return list(read_yaml(file).get("align") or {}) if file.is_file() else []


def _check_fresh(gallery: Gallery) -> None:
    """Refuse an index whose encoder, features or objects have been made anew since."""
    info, name = gallery.index.info, gallery.name
    found = (
        ("objects", "data/objects", info.dataset_digest, gallery.store.info.digest),
        ("teacher features", str(gallery.features.path), info.features_digest, gallery.features.info.digest),
        ("weights", f"models/{name}", info.encoder_sha256, gallery.card.weights_sha256),
    )
    for what, where, made, there in found:
        if made != there:
            raise DataError(
                f"{gallery.index.path}: the index is out of date: it was made with other {what} ({made[:12]}) than "
                f"{where} holds now ({there[:12]}). Run `pointloom run`, or `dvc repro align@{name}` in the workspace"
            )


def _embed_words(gallery: Gallery, query: str) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return the unit vector of a query and the words that the text teacher left out."""
    number = len(query.split())
    if not 1 <= number <= MAX_WORDS:
        raise ParamsError(
            f"the query has {number} words, expected 1 to {MAX_WORDS}; describe one shape: a round wooden table"
        )
    teacher = open_text_teacher(gallery.features, gallery.index.info.text_teacher)
    unknown = set(teacher.unknown_words(query)) - FILLERS
    (vector,) = teacher.encode([query])
    if teacher.vocabulary is not None and not set(words_of(query)) - unknown - FILLERS:
        raise DataError(_nothing_known(gallery, query, sorted(unknown), teacher.vocabulary))
    typed = dict.fromkeys(re.findall(r"[^\W_]+", query))  # as typed: the teacher's own words have lost their plural
    return vector, tuple(word for word in typed if unknown.intersection(words_of(word)))


def _nothing_known(gallery: Gallery, query: str, unknown: list[str], vocabulary: list[str]) -> str:
    """Say that a query has no word that any caption holds, and which words are like it."""
    close = [word for own in unknown for word in difflib.get_close_matches(own, vocabulary, n=3)]
    common = [word for name in gallery.features.info.classes for word in words_of(name) if word in vocabulary]
    hint = f"similar words that it knows: {', '.join(dict.fromkeys(close))}" if close else ""
    telling = [word for word in vocabulary if word not in FILLERS and not word[0].isdigit()]
    examples = ", ".join(list(dict.fromkeys(common or telling))[:EXAMPLES])
    return (
        f"the text teacher {gallery.index.info.text_teacher!r} knows no word of {query!r}: it knows the words of the "
        f"captions it was made from and nothing else; {hint or f'it knows, for example: {examples}'}"
    )


def _embed_file(gallery: Gallery, path: Path, up: str | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the unit vector of a mesh or point cloud in the space of the text teacher, and its points."""
    import torch

    try:
        points = read_shape(path, num_points=gallery.card.num_points, up=up)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(f"{path}: no such file; give a mesh or a point cloud") from error
    except RejectedError as error:
        raise DataError(f"{path}: cannot be used as a query: {error}") from error
    heads, card = load_heads(gallery.encoder)
    if card.encoder_sha256 != gallery.card.weights_sha256:
        raise DataError(
            f"{gallery.encoder}: encoder and projections are from different runs; run `dvc repro align@{gallery.name}`"
        )
    feature = load_object_encoder(gallery.encoder, device="cpu").encode(points.coord[: gallery.card.num_points])
    with torch.inference_mode():
        (vector,) = heads.embed(torch.from_numpy(feature)).numpy()
    return vector, points.coord


def _hits(gallery: Gallery, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Hit]:
    store, source = gallery.store, gallery.workspace.source
    row_of = {uid: row for row, uid in enumerate(store.uids.tolist())}
    hits = []
    for rank, (uid, score) in enumerate(zip(gallery.index.uids[rows].tolist(), scores.tolist(), strict=True), start=1):
        row = row_of[uid]
        path = str(store.paths[row])
        hits.append(
            Hit(
                rank=rank,
                score=score,
                uid=uid,
                category=str(store.categories[row]) or None,
                name=str(store.names[row]),
                split=str(store.splits[row]),
                path=path if path.startswith("synthetic/") else str(source / path),
                captions=tuple(gallery.features.texts(uid)[:CAPTIONS_SHOWN]),
            )
        )
    return hits

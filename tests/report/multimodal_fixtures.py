"""What the multimodal stages add to a workspace: views, captions, features, an aligned and a distilled encoder."""

from pathlib import Path
from typing import Any

import numpy as np

from pointloom.data.captions import Caption, CaptionsInfo, write_captions
from pointloom.data.feature_files import FeatureInfo, FeaturesInfo, ObjectFeatures, write_features
from pointloom.data.shape_index import IndexInfo, write_index
from pointloom.data.shards import ObjectStore
from pointloom.data.views import ViewsInfo, encode_views, write_views
from pointloom.render.cameras import Rig
from pointloom.render.points import splat_points
from pointloom.teachers.offline_text import BagOfWords, fit_bag_of_words
from tests.report.fixtures import _write_json, write_encoder, write_finetune, write_probe, write_workspace

RIG = Rig(layout="openshape12", size=32, fov_degrees=40.0)
COLORS = ("red", "green", "blue", "grey")
NUM_TEXTS = 2
CLASS_DIM, TEXT_DIM = 8, 64


def write_views_of(store: ObjectStore, folder: Path) -> str:
    """Draw every object from twelve cameras; the last view of the first object is rejected."""
    folder.mkdir(parents=True)
    info = ViewsInfo(
        layout=RIG.layout,
        size=RIG.size,
        intrinsics=RIG.intrinsics,
        poses=RIG.poses,
        renderer="raycast",
        device="Embree",
        settings={},
        dataset_digest=store.info.digest,
    )

    def objects() -> Any:
        for row, uid in enumerate(store.uids.tolist()):
            coord = store.coords(np.array([row]))[0]
            color = store.colors(np.array([row]))[0]
            shots = [splat_points(coord, color=color, camera=camera, size=RIG.size) for camera in RIG.cameras]
            depth = [np.where(np.isfinite(shot.depth), shot.depth, 0).astype(np.float32) for shot in shots]
            valid = [row > 0 or number < 11 for number in range(len(shots))]
            yield encode_views(uid, [shot.rgb for shot in shots], depth, valid=valid)

    return write_views(folder, objects(), info=info).digest


def captions_of(store: ObjectStore) -> dict[str, list[Caption]]:
    """Two sentences per object and one that is not used; the object with the name ``mug 1`` has none."""
    found = {}
    for row, uid in enumerate(store.uids.tolist()):
        color, kind = COLORS[row % len(COLORS)], str(store.categories[row]) or "shape"
        found[uid] = [
            Caption(f"a {color} {kind} with thin legs", 0.31, 2, True),
            Caption(f"a {kind} on <white> ground", 0.27, 5, True),
            Caption("a picture of a picture of a picture", 0.11, 7, False),
        ]
        if store.names[row] == "mug 1":
            found[uid] = []
    return found


def write_captions_of(store: ObjectStore, folder: Path, *, views_digest: str) -> str:
    folder.mkdir(parents=True)
    info = CaptionsInfo(
        captioner="offline",
        model="measured facts",
        model_digest=None,
        prompt=None,
        seed=0,
        category=True,
        ranker=None,
        dataset_digest=store.info.digest,
        views_digest=views_digest,
    )
    captions = captions_of(store)
    return write_captions(folder, ((uid, captions[uid]) for uid in store.uids.tolist()), info=info).digest


def bag_of_words(store: ObjectStore) -> BagOfWords:
    captions = captions_of(store)
    return fit_bag_of_words(
        (found[0].text for uid in store.uids[store.splits != "test"].tolist() if (found := captions[uid])),
        dim=TEXT_DIM,
        idf_power=1.0,
    )


def write_features_of(store: ObjectStore, folder: Path, *, views_digest: str, captions_digest: str) -> str:
    """A bag of words and one image teacher whose vectors depend on the class."""
    folder.mkdir(parents=True)
    text, captions = bag_of_words(store), captions_of(store)
    info = FeaturesInfo(
        teachers=(
            FeatureInfo("words", "text", "captions", text.name, TEXT_DIM, "k1"),
            FeatureInfo("shade", "image", "depth", "shading descriptor, 8 whitened components", CLASS_DIM, "k2"),
        ),
        classes=store.info.classes,
        dataset_digest=store.info.digest,
        views_digest=views_digest,
        captions_digest=captions_digest,
        category=True,
        num_texts=NUM_TEXTS,
        num_views=12,
    )
    rng = np.random.default_rng(4)
    means = rng.normal(size=(len(store.info.classes) + 1, CLASS_DIM))
    numbers: dict[str, int] = {}

    def objects() -> Any:
        for row, uid in enumerate(store.uids.tolist()):
            sentences = [caption.text for caption in captions[uid] if caption.ok]
            words = np.full((NUM_TEXTS, TEXT_DIM), np.nan, dtype=np.float32)
            words[: len(sentences)] = text.encode_text(sentences)
            views = means[store.labels[row]] + 0.4 * rng.normal(size=(12, CLASS_DIM))
            views[11] = np.nan
            ids = tuple(numbers.setdefault(sentence, len(numbers)) for sentence in sentences)
            values = {"words": words, "shade": views.astype(np.float32)}
            yield ObjectFeatures(uid, tuple(sentences), ids, values)

    class_text = {"words": text.encode_text([f"a {name}" for name in store.info.classes])}
    return write_features(folder, objects(), info=info, class_text=class_text, reopen={"words": text.saved()}).digest


def write_aligned(results: Path, store: ObjectStore, name: str, *, features_digest: str, features: Path) -> None:
    """Write made-up tests of an aligned encoder, one class held out, and an index that finds every third caption."""
    folder, rng = results / "align" / name, np.random.default_rng(5)
    folder.mkdir(parents=True)
    test = store.rows("test")
    held = store.labels[test] == 0
    runs: list[dict[str, Any]] = []
    hits = {top: np.full((6, len(test)), np.nan, dtype=np.float32) for top in (1, 5)}
    for seed in range(3):
        for number, (classes, inside) in enumerate((("seen", ~held), ("held_out", held))):
            skill = 0.6 if classes == "seen" else 0.2
            hits[1][2 * seed + number, inside] = rng.uniform(size=inside.sum()) < skill
            hits[5][2 * seed + number, inside] = 1.0
            top1 = float(100 * hits[1][2 * seed + number, inside].mean())
            run = {"task": "text_classification", "classes": classes, "seed": seed, "num_test": int(inside.sum())}
            runs.append(run | {"num_classes": 5, "top1": top1, "top3": 80.0, "top5": 100.0, "macc": top1})
        for query, modality in (("words", "text"), ("shade", "image")):
            run = {
                "task": "retrieval",
                "query": query,
                "modality": modality,
                "seed": seed,
                "queries": 30,
                "gallery": 36,
            }
            runs.append(run | {"recall@1": 11.0 + seed, "recall@5": 30.0, "recall@10": 45.0, "median_rank": 11.0})
    np.savez(
        folder / "predictions.npz",
        uid=store.uids[test],
        label=store.labels[test],
        classes=np.array(["seen", "held_out"] * 3),
        seed=np.repeat(np.arange(3), 2),
        hit1=hits[1],
        hit5=hits[5],
    )
    card: dict[str, Any] = {"format": 1, "stage": "align", "name": name, "task": "text", "runs": runs}
    card["encoder"] = {"builder": "point_mae_tiny", "method": "align", "labels": "captions", "sha256": f"sha-{name}"}
    card["data"] = {"digest": store.info.digest}
    card["protocol"] = {"held_out": ["chair"], "category_words": True, "seed_covers": "draws of points"}
    _write_json(folder / "result.json", card)
    text, captions = bag_of_words(store), captions_of(store)
    words = text.encode_text(
        [(captions[uid] or [Caption("mug", None, None, True)])[0].text for uid in store.uids.tolist()]
    )
    noise = rng.normal(size=words.shape) * np.where(np.arange(len(words)) % 3, 2.0, 0.01)[:, None]
    embedding = (words + noise * np.abs(words).mean()).astype(np.float32)
    info = IndexInfo(
        encoder_sha256=f"sha-{name}",
        dataset_digest=store.info.digest,
        features_digest=features_digest,
        text_teacher="words",
        features=str(Path("../../..") / features.relative_to(results.parent)),
    )
    write_index(
        folder,
        info,
        uid=store.uids,
        split=store.splits,
        label=store.labels,
        embedding=embedding / np.linalg.norm(embedding, axis=1, keepdims=True),
        feature=(rng.normal(size=(len(store), 6)) + store.labels[:, None]).astype(np.float32),
    )


def write_multimodal_workspace(root: Path, **options: Any) -> dict[str, Path]:
    """Write everything that the report reads after a multimodal run and return its paths by argument name."""
    paths = write_workspace(root, **options)
    store = ObjectStore(paths["dataset"])
    views = write_views_of(store, root / "data" / "views" / "twelve")
    captions = write_captions_of(store, root / "data" / "captions" / "offline", views_digest=views)
    features = root / "data" / "features" / "offline"
    digest = write_features_of(store, features, views_digest=views, captions_digest=captions)
    write_aligned(paths["results"], store, "align", features_digest=digest, features=features)
    for name in ("align", "distill"):
        write_encoder(paths["models"], paths["dataset"], name, method=name, builder="point_mae_tiny", num_points=64)
        write_finetune(
            paths["results"],
            paths["dataset"],
            name,
            method=name,
            builder="point_mae_tiny",
            seeds=options.get("seeds", 3),
            fractions=options.get("fractions", (0.2, 1.0)),
        )
    write_probe(paths["results"], paths["dataset"], "distill", method="distill", seeds=3, labelled=True)
    return paths

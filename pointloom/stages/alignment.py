"""What an aligned encoder can do: classification by text, retrieval, and the index of all objects."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pointloom.stages.training import as_sampling, result_header, summarise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.data.feature_files import FeatureInfo
    from pointloom.data.features import FeatureStore
    from pointloom.data.shards import ObjectStore
    from pointloom.data.triplets import ImageTeacher
    from pointloom.methods.align import Align
    from pointloom.stages.align import AlignParams
    from pointloom.train.checkpoint import EncoderCard

CLOUDS_AT_ONCE = 64


@dataclass(frozen=True)
class Aligned:
    """A finished alignment.

    Attributes:
        method: Encoder and projections.
        card: What was written of the encoder.
        store: Prepared objects.
        features: Cached teacher features.
        text: The text teacher.
        images: The image teachers.
        held_out: Classes that took no part.
        captions_dropped: Training captions that name a held-out class.
        num_aligned: Objects that were aligned.
    """

    method: "Align"
    card: "EncoderCard"
    store: "ObjectStore"
    features: "FeatureStore"
    text: "FeatureInfo"
    images: "tuple[ImageTeacher, ...]"
    held_out: list[str]
    captions_dropped: int
    num_aligned: int


def write_results(folder: Path, aligned: Aligned, params: "AlignParams", *, name: str, path: Path) -> dict[str, float]:
    """Test an aligned encoder, index all objects, write both into ``folder``, and return headline numbers.

    Args:
        folder: Where to write; it will become ``path``.
        aligned: The finished alignment.
        params: Of the stage.
        name: Name of the result.
        path: Final place of the folder, which the index's reference to the features is relative to.
    """
    import numpy as np

    from pointloom.data.shape_index import IndexInfo, write_index
    from pointloom.stages.runs import write_json

    store, features = aligned.store, aligned.features
    tested = (store.splits == "test") | np.isin(store.categories, aligned.held_out)
    runs: list[dict[str, Any]] = []
    for number, seed in enumerate(params.test.seeds):
        wanted = tested if number else np.ones_like(tested)  # the index has all objects, of the first seed
        feature, embedding = embed_objects(aligned, params, seed=seed, wanted=wanted)
        runs += _text_runs(aligned, embedding, seed)
        runs += _retrieval_runs(aligned, feature, embedding, seed)
        if number == 0:
            info = IndexInfo(
                encoder_sha256=aligned.card.weights_sha256,
                dataset_digest=store.info.digest,
                features_digest=features.info.digest,
                text_teacher=aligned.text.name,
                features=os.path.relpath(features.path, path),
            )
            write_index(
                folder, info, uid=store.uids, split=store.splits, label=store.labels, embedding=embedding,
                feature=feature,
            )  # fmt: skip
    _write_predictions(folder / "predictions.npz", store, runs)
    records = [{key: value for key, value in run.items() if key not in {"rows", "hits"}} for run in runs]
    header = result_header("align", name, card=aligned.card, store=store, protocol=_protocol(aligned, params))
    intervals = _intervals(store, params, runs)
    write_json(folder / "result.json", header | {"task": "text", "runs": records, "intervals": intervals})
    return _headline(records)


def _protocol(aligned: Aligned, params: "AlignParams") -> dict[str, Any]:
    return {
        "selection": "last",
        "epochs": params.epochs,
        "num_points": params.sampling.num_points,
        "draws": params.test.draws,
        "held_out": aligned.held_out,
        "captions_dropped": aligned.captions_dropped,
        "category_words": True if params.captions == "names" else aligned.features.info.category,
        "num_aligned": aligned.num_aligned,
        "text_teacher": {"name": aligned.text.name, "model": aligned.text.model},
        "image_teachers": {teacher.name: list(teacher.entries) for teacher in aligned.images},
        "seed_covers": "draws of points and of the views that are asked with",
    }


def embed_objects(
    aligned: Aligned, params: "AlignParams", *, seed: int, wanted: "NDArray[np.bool_]"
) -> "tuple[NDArray[np.float32], NDArray[np.float32]]":
    """Return the encoder's feature (A, d) and the unit vector in the text teacher's space (A, D) of objects.

    Both are means over draws of the points; the mean vector is brought back to length 1. Objects that are not
    ``wanted`` have zeros, and the others the draws that they have among all objects.
    """
    import numpy as np
    import torch
    from torch.nn import functional as F
    from tqdm import tqdm

    from pointloom.data.objects import ObjectLoader
    from pointloom.train.device import best_device

    store, device, draws = aligned.store, best_device(), params.test.draws
    method = aligned.method.to(device).eval()
    rows = np.arange(len(store))
    loader = ObjectLoader(store, rows, sampling=as_sampling(params.sampling), batch_size=CLOUDS_AT_ONCE, seed=seed)
    feature = torch.zeros(len(rows), method.encoder.global_dim)
    embedding = torch.zeros(len(rows), aligned.text.dim)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=params.optim.precision == "bf16"),
        tqdm(total=int(wanted.sum()) * draws, desc=f"embed, seed {seed}", unit="cloud") as bar,
    ):
        for draw in range(draws):
            for batch in loader.draw(1 + draw):
                chosen = torch.from_numpy(wanted)[batch.row]
                row, coord = batch.row[chosen], batch.coord[chosen].to(device)
                if len(row):
                    pooled = method.encoder.pool(method.encoder(method.encoder.group(coord))).float()
                    feature[row] += pooled.cpu() / draws
                    embedding[row] += method.heads.embed(pooled).cpu() / draws
                bar.update(len(row))
    return feature.numpy(), F.normalize(embedding, dim=-1).numpy()


def _text_runs(aligned: Aligned, embedding: "NDArray[np.float32]", seed: int) -> list[dict[str, Any]]:
    """Classify by text: test objects of seen classes among those, all objects of held-out classes among these."""
    import numpy as np

    from pointloom.tasks.text_classification import chance, classify_by_text

    store = aligned.store
    held_out = np.array([name in aligned.held_out for name in store.info.classes], dtype=bool)
    class_text = aligned.features.class_text(aligned.text.name)
    runs = []
    for which, candidates, rows in (
        ("seen", np.flatnonzero(~held_out), store.rows("test")),
        ("held_out", np.flatnonzero(held_out), np.arange(len(store))),
    ):
        tested = rows[np.isin(store.labels[rows], candidates)]
        if len(candidates) < 2 or len(tested) == 0:
            continue
        scores = classify_by_text(embedding[tested], class_text, store.labels[tested], candidates=candidates.tolist())
        runs.append({
            "task": "text_classification", "classes": which, "seed": seed, "num_test": len(tested),
            "num_classes": len(candidates), **scores.metrics, "chance": chance(len(candidates)),
            "rows": tested, "hits": scores.hits,
        })  # fmt: skip
    return runs


def _retrieval_runs(
    aligned: Aligned, feature: "NDArray[np.float32]", embedding: "NDArray[np.float32]", seed: int
) -> list[dict[str, Any]]:
    """Find test objects by their best caption and by one view each."""
    from pointloom.tasks.retrieval import ranks, retrieval_metrics

    gallery = aligned.store.rows("test")
    runs = []
    for modality, name, shape, query, query_id, gallery_id in _queries(aligned, gallery, feature, embedding, seed):
        if len(query) == 0:
            continue
        found = ranks(query, shape, query_id=query_id, gallery_id=gallery_id)
        runs.append({
            "task": "retrieval", "query": name, "modality": modality, "seed": seed, "queries": len(query),
            "gallery": len(gallery), **retrieval_metrics(found),
        })  # fmt: skip
    return runs


def _queries(
    aligned: Aligned,
    gallery: "NDArray[np.int64]",
    feature: "NDArray[np.float32]",
    embedding: "NDArray[np.float32]",
    seed: int,
) -> "Iterator[tuple[str, str, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]]":
    """Yield modality, name, shapes, queries and the numbers that say which shapes answer which query.

    Every distinct sentence asks once, and all objects that it describes are right answers.
    """
    import numpy as np
    import torch

    from pointloom.data.triplets import TeacherVectors
    from pointloom.train.device import best_device

    vectors = TeacherVectors(
        aligned.features, gallery, text=aligned.text.name, images=aligned.images, usable=None, top_caption=True
    )
    rng, chosen = np.random.default_rng(seed), np.arange(len(gallery))
    caption = vectors.draw_caption(chosen, rng)
    sentence = np.where(vectors.text_present[chosen, caption], vectors.text_id[chosen, caption], -1)
    asked, first = np.unique(sentence, return_index=True)
    first = first[asked >= 0]
    query = vectors.read(aligned.text.name, chosen[first], caption[first])
    yield "text", aligned.text.name, embedding[gallery], query, sentence[first], sentence
    view = vectors.draw_view(chosen, rng)
    for teacher in aligned.images:
        with torch.inference_mode():
            shape = aligned.method.heads.embed(torch.from_numpy(feature[gallery]).to(best_device()), teacher.name)
        for entry in teacher.entries:
            shown = np.flatnonzero(vectors.image_present[entry][chosen, view])
            query = vectors.read(entry, shown, view[shown])
            yield "image", entry, shape.cpu().numpy(), query, shown, chosen


def _intervals(store: "ObjectStore", params: "AlignParams", runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, per set of classes, bootstrap intervals of top-1 and top-5 over groups of objects and seeds."""
    import numpy as np

    from pointloom.report.statistics import paired_difference

    found = []
    for which in dict.fromkeys(run["classes"] for run in runs if run["task"] == "text_classification"):
        same = [run for run in runs if run.get("classes") == which]
        for k in (1, 5):
            hits = np.stack([run["hits"][k] for run in same])
            interval = paired_difference(
                hits, np.zeros_like(hits), groups=store.groups[same[0]["rows"]], resamples=params.test.resamples,
                confidence=params.test.confidence, seed=0,
            )  # fmt: skip
            found.append({
                "classes": which, "metric": f"top{k}", "mean": interval.mean, "low": interval.low,
                "high": interval.high, "chance": same[0]["chance"][f"top{k}"], "objects": interval.objects,
                "groups": interval.groups, "confidence": params.test.confidence,
            })  # fmt: skip
    return found


def _write_predictions(path: Path, store: "ObjectStore", runs: list[dict[str, Any]]) -> None:
    """Write hits per run and object; NaN where an object is not in the run's set of classes."""
    import numpy as np

    tests = [run for run in runs if run["task"] == "text_classification"]
    if not tests:
        return
    rows = np.unique(np.concatenate([run["rows"] for run in tests]))
    hits = {k: np.full((len(tests), len(rows)), np.nan, dtype=np.float32) for k in (1, 5)}
    for number, run in enumerate(tests):
        for k, values in hits.items():
            values[number, np.searchsorted(rows, run["rows"])] = run["hits"][k]
    np.savez_compressed(
        path,
        uid=store.uids[rows],
        label=store.labels[rows],
        classes=np.array([run["classes"] for run in tests]),
        seed=np.array([run["seed"] for run in tests]),
        hit1=hits[1],
        hit5=hits[5],
    )


def _headline(records: list[dict[str, Any]]) -> dict[str, float]:
    """Return means and standard deviations over seeds."""
    summary: dict[str, float] = {}
    for which in ("seen", "held_out"):
        same = [record for record in records if record.get("classes") == which]
        if same:
            summary |= summarise(same, ("top1", "top3", "top5", "macc"), prefix=f"{which}/")
    for query in dict.fromkeys(record["query"] for record in records if record["task"] == "retrieval"):
        same = [record for record in records if record.get("query") == query]
        summary |= summarise(same, ("recall@1", "recall@10", "median_rank"), prefix=f"retrieval/{query}/")
    return {key.replace("@", "_at_"): value for key, value in summary.items()}

"""Which objects the report shows: inputs per class, reconstructions, coloured features, retrieved neighbours."""

import html
from typing import Any

import numpy as np

from pointloom.data.shards import ObjectStore
from pointloom.report.album import Album, component_colors, file_name, strip
from pointloom.report.inputs import EncoderRecord, ReportInputs, ResultRecord
from pointloom.report.pictures import Pictures
from pointloom.report.retrieval import Gallery, nearest, pick_queries

PER_CLASS = 4
UNLABELLED = 48
RECONSTRUCTIONS = 8
NEIGHBORS = 5

Row = dict[str, Any]


def input_strips(inputs: ReportInputs, album: Album, *, seed: int) -> list[Row]:
    """Draw up to four objects per class, or up to 48 objects where no classes are known."""
    store = inputs.store
    rng = np.random.default_rng(seed)
    named = sorted(set(store.categories.tolist()) - {""})
    groups = {name: np.flatnonzero(store.categories == name) for name in named}
    rows = []
    for title, members in groups.items():
        chosen = np.sort(rng.permutation(members)[:PER_CLASS])
        pictures = album.draw_objects(store, chosen.tolist())
        pictures += [np.full_like(pictures[0], 255)] * (PER_CLASS - len(pictures))
        path = album.add(f"inputs/{file_name(title)}", strip(pictures))
        rows.append({"title": title, "count": len(members), "image": path, "uids": store.uids[chosen].tolist()})
    others = rng.permutation(np.flatnonzero(store.categories == ""))[: UNLABELLED if not groups else PER_CLASS]
    for start in range(0, len(others), PER_CLASS):
        chosen = others[start : start + PER_CLASS]
        path = album.add(
            f"inputs/unlabelled_{start // PER_CLASS:02d}", strip(album.draw_objects(store, chosen.tolist()))
        )
        uids = store.uids[chosen].tolist()
        rows.append({"title": "unlabelled", "count": len(chosen), "image": path, "uids": uids})
    return rows


def reconstructions(encoder: EncoderRecord, store: ObjectStore, album: Album) -> list[Row]:
    """Draw input, masked input and reconstruction of the held-out samples an encoder left behind."""
    samples = encoder.samples
    if not {"uid", "coord", "visible", "reconstruction"} <= samples.keys():
        return []
    rows = []
    for position, uid in enumerate(samples["uid"][:RECONSTRUCTIONS].tolist()):
        picture = album.draw_reconstruction(
            samples["coord"][position].astype(np.float32),
            samples["visible"][position].astype(bool),
            samples["reconstruction"][position].astype(np.float32),
        )
        path = album.add(f"reconstructions/{file_name(encoder.name)}_{position:02d}", picture)
        hidden = float(100 * (1 - samples["visible"][position].mean()))
        rows.append({"uid": uid, "title": title_of(store, uid), "image": path, "hidden": hidden})
    return rows


def feature_strip(result: ResultRecord, album: Album) -> str | None:
    """Draw the sampled test objects of a probe coloured by the principal components of their point features."""
    arrays = result.features
    if not {"point_coord", "point_feature"} <= arrays.keys() or not len(arrays["point_coord"]):
        return None
    coord = arrays["point_coord"].astype(np.float32)
    colors = component_colors(arrays["point_feature"].astype(np.float64))
    pictures = [album.draw(points, color) for points, color in zip(coord, colors, strict=True)]
    return album.add(f"features/{file_name(result.name)}", strip(pictures[:6]))


def neighbor_rows(gallery: Gallery, pictures: Pictures, *, count: int, seed: int) -> list[Row]:
    """Return queries with their five nearest neighbours; every object is drawn once."""
    ranked = nearest(gallery)
    rows = []
    for query in pick_queries(gallery, count=count, seed=seed):
        positions = [query, *ranked[query, :NEIGHBORS].tolist()]
        label = int(gallery.label[query])
        cells = []
        for position in positions:
            uid = str(gallery.uid[position])
            path = pictures.of(uid)
            if path is None:
                continue
            known = label >= 0 and gallery.label[position] >= 0
            cells.append(
                {
                    "uid": uid,
                    "title": title_of(pictures.store, uid),
                    "image": path,
                    "cosine": float(gallery.feature[query] @ gallery.feature[position]),
                    "same_class": bool(gallery.label[position] == label) if known else None,
                }
            )
        if len(cells) > 1:
            rows.append({"query": cells[0], "neighbors": cells[1:]})
    return rows


def title_of(store: ObjectStore, uid: str) -> str:
    """Return the class of an object, or its name where the class is unknown."""
    found = np.flatnonzero(store.uids == uid)
    if not len(found):
        return uid
    return str(store.categories[found[0]]) or str(store.names[found[0]])


def titles_and_hover(store: ObjectStore, uids: np.ndarray) -> tuple[list[str], list[str]]:
    """Return class and hover text of objects; ``unlabelled`` where the class is unknown."""
    row_of = {uid: row for row, uid in enumerate(store.uids.tolist())}
    titles, hover = [], []
    for uid in uids.tolist():
        row = row_of.get(uid)
        titles.append("unlabelled" if row is None or not store.categories[row] else str(store.categories[row]))
        hover.append(uid if row is None else f"{titles[-1]}<br>{html.escape(str(store.names[row]))}")
    return titles, hover

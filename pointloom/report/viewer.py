"""Point clouds for the interactive 3D view: quantised, base64, at most 2,048 points each."""

import base64
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from pointloom.report.album import PREDICTED_COLOR, VISIBLE_COLOR, component_colors
from pointloom.report.gallery import title_of
from pointloom.report.inputs import ReportInputs

MAX_POINTS = 2048
MIXED = 3  # reconstructions and coloured features are shown for this many objects per encoder

Entry = dict[str, Any]


def viewer_entries(inputs: ReportInputs, *, count: int, seed: int, detail: list[str]) -> list[Entry]:
    """Return the clouds of the 3D view: inputs, then reconstructions, then features of the named probes."""
    store = inputs.store
    preferred = store.rows("test") if len(store.rows("test")) else np.arange(len(store))
    chosen = np.random.default_rng(seed).permutation(preferred)[:count]
    points = min(MAX_POINTS, store.info.num_points)
    entries = []
    for row, coord, color in zip(chosen, store.coords(chosen, points), store.colors(chosen, points), strict=True):
        title = " · ".join(dict.fromkeys([title_of(store, str(store.uids[row])), str(store.names[row])]))
        entries.append(pack_cloud("Inputs", title, coord, color))
    for encoder in inputs.encoders.values():
        samples = encoder.samples
        if {"uid", "coord", "visible", "reconstruction"} <= samples.keys():
            for position, uid in enumerate(samples["uid"][:MIXED].tolist()):
                seen = samples["coord"][position][samples["visible"][position].astype(bool)]
                cloud = np.concatenate([seen, samples["reconstruction"][position]]).astype(np.float32)
                color = np.repeat(
                    np.array([VISIBLE_COLOR, PREDICTED_COLOR], dtype=np.uint8),
                    [len(seen), len(cloud) - len(seen)],
                    axis=0,
                )
                title = f"{title_of(store, uid)} · {encoder.name}"
                entries.append(pack_cloud("Reconstructions (orange: predicted)", title, cloud, color))
    for name in detail:
        arrays = inputs.probe[name].features if name in inputs.probe else {}
        if {"point_uid", "point_coord", "point_feature"} <= arrays.keys() and len(arrays["point_coord"]):
            colors = component_colors(arrays["point_feature"].astype(np.float64))
            for position, uid in enumerate(arrays["point_uid"][:MIXED].tolist()):
                cloud = arrays["point_coord"][position].astype(np.float32)
                title = f"{title_of(store, uid)} · {name}"
                entries.append(
                    pack_cloud("Point features (first three principal components)", title, cloud, colors[position])
                )
    return entries


def pack_cloud(
    group: str,
    title: str,
    coord: Float32[np.ndarray, "n 3"],
    color: UInt8[np.ndarray, "n 3"],
    *,
    most: int = MAX_POINTS,
) -> Entry:
    """Return at most ``most`` points as base64: little-endian int16 in units of ``scale``, and 8-bit colours."""
    step = max(1, -(-len(coord) // most))
    coord, color = coord[::step], color[::step]
    scale = float(np.abs(coord).max(initial=1e-6)) / 32000
    return {
        "group": group,
        "title": title,
        "scale": scale,
        "coord": base64.b64encode((coord / scale).round().astype("<i2").tobytes()).decode("ascii"),
        "color": base64.b64encode(np.ascontiguousarray(color).tobytes()).decode("ascii"),
    }

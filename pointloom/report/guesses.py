"""What a distilled student makes of the parts it does not see: likeness of its guesses to the teacher's tokens."""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from pointloom.data.shards import ObjectStore
from pointloom.report.album import VISIBLE_COLOR, Album, file_name, strip
from pointloom.report.gallery import RECONSTRUCTIONS, title_of
from pointloom.report.inputs import EncoderRecord

LOW, HIGH = (178, 24, 43), (33, 102, 172)
"""Colours of no likeness (cosine 0 or less) and of full likeness (cosine 1); white lies between."""

Row = dict[str, Any]


def guesses(encoder: EncoderRecord, store: ObjectStore, album: Album) -> list[Row]:
    """Draw input, what the student saw, and every point in the colour of the likeness at its nearest patch."""
    samples = encoder.samples
    if not {"uid", "coord", "visible", "centers", "hidden", "cosine"} <= samples.keys():
        return []
    rows = []
    for position, uid in enumerate(samples["uid"][:RECONSTRUCTIONS].tolist()):
        coord, centers, cosine = (samples[key][position].astype(np.float32) for key in ("coord", "centers", "cosine"))
        visible, hidden = (samples[key][position].astype(bool) for key in ("visible", "hidden"))
        nearest = np.square(coord[:, None] - centers[None]).sum(-1).argmin(1)
        grey = np.broadcast_to(np.array(VISIBLE_COLOR, dtype=np.uint8), coord.shape)
        pictures = [
            album.draw(coord, grey),
            album.draw(coord[visible], grey[visible]),
            album.draw(coord, likeness_colors(cosine[nearest])),
        ]
        rows.append({
            "uid": uid,
            "title": title_of(store, uid),
            "image": album.add(f"guesses/{file_name(encoder.name)}_{position:02d}", strip(pictures)),
            "hidden": float(100 * hidden.mean()),
            "cosine_hidden": float(cosine[hidden].mean()) if hidden.any() else None,
            "cosine_visible": float(cosine[~hidden].mean()) if (~hidden).any() else None,
        })  # fmt: skip
    return rows


def likeness_colors(cosine: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 3"]:
    """Return colours from ``LOW`` at 0 over white at 0.5 to ``HIGH`` at 1."""
    share = np.clip(cosine, 0, 1)[:, None]
    low, white, high = (np.array(color, dtype=np.float32) for color in (LOW, (255, 255, 255), HIGH))
    below, above = low + (white - low) * 2 * share, white + (high - white) * (2 * share - 1)
    return np.where(share < 0.5, below, above).astype(np.uint8)

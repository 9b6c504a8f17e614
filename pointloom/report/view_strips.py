"""Rendered views and captions of some objects, side by side, so that a wrong axis or a foolish caption is seen."""

from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from pointloom.data.captions import CaptionStore
from pointloom.data.views import ViewStore
from pointloom.report.album import Album, file_name, strip
from pointloom.report.families import held_out
from pointloom.report.gallery import title_of
from pointloom.report.inputs import ReportInputs
from pointloom.report.pictures import shrink
from pointloom.report.retrieval import varied_choice

VIEWS_SHOWN = 6
CAPTIONS_SHOWN = 3
REJECTED_SHADE = 225

Row = dict[str, Any]


def view_blocks(inputs: ReportInputs, album: Album, *, count: int, seed: int) -> list[Row]:
    """Return one block per set of captions with its views, and one per set of views without captions.

    Args:
        inputs: Everything the report is made from.
        album: Where pictures go.
        count: Objects per block, the same in every block.
        seed: Of their choice.
    """
    families = inputs.families
    pairs: list[tuple[str, ViewStore | None, CaptionStore | None]] = [
        (name, families.views_with(captions.info.views_digest), captions)
        for name, captions in families.captions.items()
    ]
    used = {id(views) for _, views, _ in pairs}
    pairs += [(name, views, None) for name, views in families.views.items() if id(views) not in used]
    rows = held_out(inputs.store.splits)
    chosen = rows[varied_choice(inputs.store.labels[rows], count=count, seed=seed)]
    return [
        {
            "name": name,
            "views": _views_facts(views),
            "captions": _caption_facts(captions),
            "objects": [
                {"uid": uid, "title": title_of(inputs.store, uid)}
                | _pictured(views, uid, album, name)
                | _described(captions, uid)
                for uid in inputs.store.uids[chosen].tolist()
            ],
        }
        for name, views, captions in pairs
    ]


def _pictured(views: ViewStore | None, uid: str, album: Album, name: str) -> Row:
    row = views.row_of.get(uid) if views else None
    if views is None or row is None:
        return {"image": None, "rejected": None}
    path = album.add(f"views/{file_name(name)}_{file_name(uid)}", _strips(views, row, album.size))
    return {"image": path, "rejected": int((~views.valid[row]).sum())}


def _described(captions: CaptionStore | None, uid: str) -> Row:
    found = captions.of(uid) if captions else []
    return {"captions": [vars(caption) for caption in found[:CAPTIONS_SHOWN]], "num_captions": len(found)}


def _views_facts(views: ViewStore | None) -> Row | None:
    if views is None:
        return None
    info = views.info
    return {
        "layout": info.layout,
        "count": len(info.poses),
        "size": info.size,
        "renderer": info.renderer,
        "device": info.device,
        "objects": len(views),
        "rejected": int((~views.valid).sum()),
    }


def _caption_facts(captions: CaptionStore | None) -> Row | None:
    if captions is None:
        return None
    info = captions.info
    return {
        "captioner": info.captioner,
        "model": info.model,
        "prompt": info.prompt,
        "seed": info.seed,
        "category": info.category,
        "ranker": info.ranker,
        "without": len(captions.failures()),
    }


def _strips(views: ViewStore, row: int, size: int) -> UInt8[np.ndarray, "h w 3"]:
    """Draw up to six views spread over the layout: colour above, depth below, rejected ones as grey fields."""
    shown = np.unique(np.linspace(0, len(views.info.poses) - 1, VIEWS_SHOWN).round().astype(int)).tolist()
    grey = np.full((size, size, 3), REJECTED_SHADE, dtype=np.uint8)
    valid = views.valid[row, shown]
    colors = [shrink(view, size) if ok else grey for view, ok in zip(views.rgb(row, shown), valid, strict=True)]
    depths = views.depth(row, shown)
    shades = [shrink(depth_shade(depth), size) if ok else grey for depth, ok in zip(depths, valid, strict=True)]
    return np.concatenate([strip(colors), strip(shades)])


def depth_shade(depth: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Draw depth as grey, near dark and far light, on white."""
    seen = depth > 0
    near, far = (depth[seen].min(), depth[seen].max()) if seen.any() else (0.0, 1.0)
    shade = np.where(seen, 40 + 170 * (depth - near) / max(far - near, 1e-6), 255)
    return np.repeat(shade.astype(np.uint8)[..., None], 3, axis=-1)

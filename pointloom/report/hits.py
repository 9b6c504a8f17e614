"""The result of a search as a small self-contained page and as JSON."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointloom.report.page import read_resource, template_environment
from pointloom.report.pictures import Pictures

SIZE = 192


@dataclass(frozen=True)
class Hit:
    """One object that a search found.

    Attributes:
        rank: 1 for the best.
        score: Cosine between query and object in the space of the text teacher.
        uid: Name in the prepared store.
        category: Class, None where unknown.
        name: Short name.
        split: ``train``, ``test`` or ``pretrain``.
        path: Source file, or ``synthetic/...`` for a generated object.
        captions: Captions of the object, best first.
    """

    rank: int
    score: float
    uid: str
    category: str | None
    name: str
    split: str
    path: str
    captions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A search and what it found.

    Attributes:
        query: Words that were searched for, or the file whose like was searched for.
        by_shape: Whether the query is a file.
        index: Name of the aligned encoder.
        labels: Labels tag of that encoder.
        text_teacher: Name of the text teacher in whose space objects are ranked.
        model: What the text teacher is.
        unknown: Words of the query that the text teacher does not know and left out.
        split: Objects that were searched: ``train``, ``test`` or ``all``.
        searched: Number of objects that were searched.
        hits: Best first.
        cloud: (n, 3) points of the file that was searched with, None for words.
    """

    query: str
    by_shape: bool
    index: str
    labels: str
    text_teacher: str
    model: str
    unknown: tuple[str, ...]
    split: str
    searched: int
    hits: list[Hit]
    cloud: NDArray[np.float32] | None


def as_json(found: Found) -> str:
    """Return a search and its hits as JSON."""
    content = {key: value for key, value in vars(found).items() if key not in {"hits", "cloud"}}
    return json.dumps({"format": 1, **content, "hits": [asdict(hit) for hit in found.hits]}, indent=1) + "\n"


def as_table(found: Found) -> str:
    """Return the hits as lines for a terminal: rank, cosine, class or name, source file and best caption."""
    rows = [
        (str(hit.rank), f"{hit.score:.3f}", hit.category or hit.name, hit.path, hit.captions[0] if hit.captions else "")
        for hit in found.hits
    ]
    head = ("", "cosine", "class", "file", "caption")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column < 2 else cell.ljust(width) for column, (cell, width) in enumerate(pairs)
        ).rstrip()
        for pairs in (list(zip(row, widths, strict=True)) for row in (head, *rows))
    )


def write_hits(found: Found, folder: Path, pictures: Pictures) -> Path:
    """Write ``search.html`` with its pictures inside and ``search.json``; return the page.

    Args:
        found: What to show.
        folder: Folder to write to; it is made when it does not exist.
        pictures: Of the objects of the searched store.
    """
    album = pictures.album
    asked = None if found.cloud is None else album.add("query", album.draw(found.cloud))
    environment = template_environment(autoescape=True)
    environment.filters["data_uri"] = album.data_uri
    page = environment.get_template("search.html.j2").render(
        found=found,
        asked=asked,
        images={hit.uid: pictures.of(hit.uid) for hit in found.hits},
        style=read_resource("report.css"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "search.html").write_text(page, encoding="utf-8")
    (folder / "search.json").write_text(as_json(found), encoding="utf-8")
    return folder / "search.html"

"""Captions on disk; nothing else in the package knows their layout.

``captions.json`` says how they were made, ``captions.parquet`` has one row per object of the prepared store with its
captions, best first (at most 4,096 objects per row group), and ``failures.jsonl`` lists the objects that have none.
Every caption is kept, those that training must not use too: ``ok`` tells them apart.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pointloom.data.records import Failure
from pointloom.data.shards import write_failures
from pointloom.errors import DataError

FORMAT = 1
ROW_GROUP = 4096
_DESCRIPTION, _TABLE = "captions.json", "captions.parquet"


@dataclass(frozen=True)
class Caption:
    """One sentence about an object.

    Attributes:
        text: The sentence.
        score: Cosine between the sentence and the view it describes, None where nothing ranks them.
        view: Number of the view it was made from, None where it was not made from a view.
        ok: Whether it says something about the object; the others repeat themselves or the prompt.
    """

    text: str
    score: float | None
    view: int | None
    ok: bool


@dataclass(frozen=True)
class Described:
    """What a captioner found out about one object.

    Attributes:
        captions: Best first.
        problem: One word and a sentence for people where no caption is ok, else None.
    """

    captions: list[Caption]
    problem: tuple[str, str] | None = None


@dataclass(frozen=True)
class CaptionsInfo:
    """What ``captions.json`` says.

    Attributes:
        captioner: Name in ``CAPTIONERS``.
        model: What wrote the sentences, for people.
        model_digest: SHA-256 of its weights, None where there are none.
        prompt: Text that the model continued, None where there is no model.
        seed: Of sampling, None where nothing is drawn.
        category: Whether captions may name the category of their object.
        ranker: What ranked them, None where nothing did.
        settings: Parameters that shape the captions.
        dataset_digest: Of the prepared store.
        views_digest: Of the views, None where they were not looked at.
        digest: SHA-256 over all of this and all captions.
    """

    captioner: str
    model: str
    model_digest: str | None
    prompt: str | None
    seed: int | None
    category: bool
    ranker: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    dataset_digest: str = ""
    views_digest: str | None = None
    digest: str = ""


def write_captions(
    folder: Path,
    objects: Iterable[tuple[str, Sequence[Caption]]],
    *,
    info: CaptionsInfo,
    failures: Sequence[Failure] = (),
) -> CaptionsInfo:
    """Write all captions into an empty folder.

    Args:
        folder: An existing folder; the caller puts it in place.
        objects: Uid and captions, best first, of all objects of the prepared store; 4,096 are in memory at a time.
        info: Description without a digest.
        failures: Objects without a caption that is ok.

    Returns:
        The description with its digest.
    """
    import pyarrow as pa
    from pyarrow import parquet

    digest = hashlib.sha256(json.dumps([FORMAT, asdict(info)], sort_keys=True).encode())
    schema = _schema()
    stream = iter(objects)
    with parquet.ParquetWriter(folder / _TABLE, schema) as writer:
        while block := list(islice(stream, ROW_GROUP)):
            rows = [{"uid": uid, **_columns(captions)} for uid, captions in block]
            digest.update(json.dumps(rows, sort_keys=True).encode())
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    write_failures(folder, failures)
    info = replace(info, digest=digest.hexdigest())
    description = {"format": FORMAT, "kind": "captions", **asdict(info)}
    (folder / _DESCRIPTION).write_text(json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return info


def _schema() -> Any:
    import pyarrow as pa

    kinds = {"text": pa.string(), "score": pa.float32(), "view": pa.int16(), "ok": pa.bool_()}
    return pa.schema([("uid", pa.string()), *((name, pa.list_(kind)) for name, kind in kinds.items())])


def _columns(captions: Sequence[Caption]) -> dict[str, list[Any]]:
    scores = [None if c.score is None else float(np.float32(c.score)) for c in captions]
    return {
        "text": [c.text for c in captions],
        "score": scores,
        "view": [c.view for c in captions],
        "ok": [c.ok for c in captions],
    }


class CaptionStore:
    """Read captions.

    Attributes:
        path: Folder of the captions.
        info: What ``captions.json`` says.
        uids: Objects in the order of the prepared store, those without captions too.
    """

    def __init__(self, path: Path | str, *, dataset_digest: str | None = None) -> None:
        """Open the captions.

        Args:
            path: Folder of the captions.
            dataset_digest: Of the prepared store that they must belong to; None does not ask.

        Raises:
            DataError: There are no captions, they are damaged, or they belong to another store.
        """
        self.path = Path(path)
        self.info = _read_info(self.path)
        if dataset_digest is not None and self.info.dataset_digest != dataset_digest:
            raise DataError(
                f"{self.path}: the captions were made for another prepared store ({self.info.dataset_digest[:12]}, "
                f"expected {dataset_digest[:12]}); run `pointloom caption` again"
            )
        self._columns = _read_table(self.path / _TABLE)
        self.uids: list[str] = self._columns["uid"].to_pylist()
        self._row_of = {uid: row for row, uid in enumerate(self.uids)}

    def __len__(self) -> int:
        return len(self.uids)

    def __iter__(self) -> Iterator[tuple[str, list[Caption]]]:
        return ((uid, self.of(uid)) for uid in self.uids)

    def of(self, uid: str) -> list[Caption]:
        """Return the captions of an object, best first; none for an object that the store does not know."""
        row = self._row_of.get(uid)
        if row is None:
            return []
        values = [self._columns[name][row].as_py() for name in ("text", "score", "view", "ok")]
        return [Caption(*parts) for parts in zip(*values, strict=True)]

    def top(self, uid: str) -> str | None:
        """Return the best caption that is ok, None where there is none."""
        return next((caption.text for caption in self.of(uid) if caption.ok), None)

    def failures(self) -> list[dict[str, str]]:
        """Return the objects without a caption that is ok: ``path``, ``reason`` and ``detail`` of each."""
        lines = (self.path / "failures.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


def _read_info(path: Path) -> CaptionsInfo:
    file = path / _DESCRIPTION
    if not file.is_file():
        raise DataError(f"{path}: no captions here ({_DESCRIPTION} is missing); run `pointloom caption` first")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content.pop("format")
        content.pop("kind")
        if version != FORMAT:
            raise DataError(f"{file}: format {version}, expected {FORMAT}; run `pointloom caption` again")
        return CaptionsInfo(**content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: damaged ({error}); run `pointloom caption` again") from error


def _read_table(file: Path) -> dict[str, Any]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(file, schema=_schema())
    except (OSError, ArrowException) as error:
        raise DataError(f"{file}: cannot be read ({error}); run `pointloom caption` again") from error
    return {name: table.column(name).combine_chunks() for name in table.column_names}

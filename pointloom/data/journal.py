"""Keep finished objects on disk while a data set is being made, so that nothing finished is ever lost.

One append-only file; a record is a header, a description and its content. A record that was cut off by a kill or a full
disk is found by its length and checksum when the file is opened again, and cut away.
"""

import contextlib
import fcntl
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from pointloom.data.records import ObjectPoints, ObjectRecord
from pointloom.errors import WorkspaceError

Opened = TypeVar("Opened", bound="ByteJournal")

_HEADER = struct.Struct("<4sIQI")  # magic, bytes of the description, bytes of the content, checksum of both
_MAGIC = b"PLJ1"
_DTYPES = {"coord": np.float32, "normal": np.float16, "color": np.uint8, "segment": np.uint8}


class ByteJournal:
    """Finished pieces of work by key, in one file that only one process may hold open.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, beside: Sequence[Path] = ()) -> None:
        """Open or create the journal and find its complete records.

        Args:
            path: The file; new pieces go there.
            beside: Journals of other processes whose finished pieces count too. They are only read, and may grow
                meanwhile; what is added later is not seen.

        Raises:
            WorkspaceError: Another process has it open.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise WorkspaceError(
                f"{path}: another run is writing into this state folder; wait for it, stop it, or use another --state"
            ) from error
        self._others: list[BinaryIO] = [open(other, "rb", buffering=0) for other in beside]  # noqa: SIM115 - likewise
        self._where: dict[str, tuple[BinaryIO, int]] = {}
        for other in self._others:
            self._where |= {key: (other, offset) for key, offset, _ in _scan(other)}
        self._end = 0
        for key, offset, end in _scan(self._file):
            self._where[key] = (self._file, offset)
            self._end = end
        if self._file.seek(0, os.SEEK_END) > self._end:
            self._file.truncate(self._end)

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def __len__(self) -> int:
        return len(self._where)

    def close(self) -> None:
        """Close the file and let others open it."""
        for file in (self._file, *self._others):
            file.close()

    def put(self, key: str, description: Mapping[str, Any], content: bytes) -> None:
        """Add a finished piece; what is written before a failure (a full disk) is taken back.

        Args:
            key: Name of the piece; a later one of the same name hides the earlier one.
            description: JSON values.
            content: Anything.

        Raises:
            OSError: The record cannot be written.
        """
        head = json.dumps({"key": key, **description}).encode()
        checksum = zlib.crc32(content, zlib.crc32(head))
        data = _HEADER.pack(_MAGIC, len(head), len(content), checksum) + head + content
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise
        self._where[key] = (self._file, self._end)
        self._end += len(data)

    def get(self, key: str) -> tuple[dict[str, Any], bytes]:
        """Return the description and the content of a finished piece.

        Raises:
            KeyError: The journal does not have it.
        """
        file, offset = self._where[key]
        file.seek(offset)
        header = _HEADER.unpack(_exactly(file, _HEADER.size))
        return json.loads(_exactly(file, header[1])), _exactly(file, header[2])


def _exactly(file: BinaryIO, size: int) -> bytes:
    """Read so many bytes, fewer only where the file ends."""
    chunks = bytearray()
    while len(chunks) < size:
        chunk = file.read(size - len(chunks))
        if not chunk:
            break
        chunks += chunk
    return bytes(chunks)


def _scan(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Yield key, start and end of the complete records, up to the first that is not."""
    offset = 0
    file.seek(0)
    while len(header := _exactly(file, _HEADER.size)) == _HEADER.size:
        magic, head_size, content_size, checksum = _HEADER.unpack(header)
        if magic != _MAGIC:
            return
        head, content = _exactly(file, head_size), _exactly(file, content_size)
        if len(head) + len(content) < head_size + content_size:
            return
        if zlib.crc32(content, zlib.crc32(head)) != checksum:
            return
        end = offset + _HEADER.size + head_size + content_size
        yield json.loads(head)["key"], offset, end
        offset = end


class Journal(ByteJournal):
    """Prepared objects by key."""

    def append(self, key: str, record: ObjectRecord, points: ObjectPoints) -> None:
        """Add a prepared object.

        Raises:
            OSError: The record cannot be written.
        """
        arrays = {name: getattr(points, name) for name in _DTYPES if getattr(points, name) is not None}
        content = b"".join(np.ascontiguousarray(a, dtype=_DTYPES[name]).tobytes() for name, a in arrays.items())
        description = {"record": asdict(record), "arrays": list(arrays), "num_points": len(points.coord)}
        self.put(key, description, content)

    def read(self, key: str) -> tuple[ObjectRecord, ObjectPoints]:
        """Return a prepared object.

        Raises:
            KeyError: The journal does not have it.
        """
        description, content = self.get(key)
        fields: dict[str, Any] = description["record"]
        for name in ("transform", "attributes", "captions"):
            fields[name] = tuple(fields[name])
        return ObjectRecord(**fields), _unpack(content, description["arrays"], num_points=description["num_points"])


def _unpack(payload: bytes, names: Sequence[str], *, num_points: int) -> ObjectPoints:
    arrays: dict[str, NDArray[Any]] = {}
    offset = 0
    for name in names:
        shape = (num_points,) if name == "segment" else (num_points, 3)
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(payload, dtype=_DTYPES[name], count=count, offset=offset).reshape(shape)
        offset += arrays[name].nbytes
    return ObjectPoints(
        coord=arrays["coord"], normal=arrays["normal"], color=arrays["color"], segment=arrays.get("segment")
    )

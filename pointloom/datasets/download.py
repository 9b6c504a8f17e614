"""Download one large file so that a broken connection costs nothing: resume, retry, verify."""

import hashlib
import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from pointloom.errors import DataError

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20
_CONNECT_S, _READ_S = 20.0, 60.0
_RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}


class _UnfinishedError(Exception):
    """The transfer ended early for a reason that may pass."""


def download(url: str, target: Path, *, attempts: int = 5, pause_s: float = 2.0) -> str:
    """Download a file, going on where an earlier attempt stopped, and return its SHA-256.

    What has arrived is in ``TARGET.part``. It is continued only if the server says that the file is still the same
    (``If-Range`` with its ETag or date); else it is fetched anew. Certificates are always verified.

    Args:
        url: http or https.
        target: File to write; it appears only when it is complete.
        attempts: How often in a row a transfer may end without a new byte.
        pause_s: Wait before the second attempt, doubled before each further one.

    Raises:
        DataError: The server does not have the file, cannot be reached or trusted, or the disk is too small.
    """
    part = target.with_name(target.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    failed, last = 0, "no attempt was made"
    while failed < attempts:
        before = _size(part)
        try:
            _continue(url, part)
        except _UnfinishedError as error:
            last = str(error)
            failed = 0 if _size(part) > before else failed + 1
            logger.info("the transfer of %s stopped at %d bytes (%s)", url, _size(part), last)
            if failed and failed < attempts:
                time.sleep(pause_s * 2 ** (failed - 1))
            continue
        digest = file_digest(part, "sha256")
        part.replace(target)
        _notes(part).unlink(missing_ok=True)
        return digest
    raise DataError(
        f"{url}: gave up after {attempts} attempts without progress ({last}); {_size(part)} bytes are kept in {part}, "
        "the same command goes on from there. Or download it with a browser, and unpack it in the same folder"
    )


def file_digest(path: Path, algorithm: str) -> str:
    """Return the hash of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _continue(url: str, part: Path) -> None:
    """Transfer what is missing of ``part``.

    Raises:
        _UnfinishedError: The transfer broke off.
        DataError: A new attempt would not help.
    """
    import requests
    import urllib3

    known = _read_notes(part, url)
    have = _size(part) if known.get("validator") else 0
    if have and have == known.get("total"):
        return
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": known["validator"]}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(_CONNECT_S, _READ_S)) as response:
            have, total = _begin(response, url, part, have)
            _receive(response, part, have=have, total=total)
    except requests.exceptions.SSLError as error:
        raise DataError(f"{url}: the server's certificate is not valid, so nothing was downloaded ({error})") from error
    except (requests.exceptions.MissingSchema, requests.exceptions.InvalidURL) as error:
        raise DataError(f"{url}: no address ({error})") from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _UnfinishedError(str(error)) from error
    if total is not None and _size(part) < total:
        raise _UnfinishedError(f"{_size(part)} of {total} bytes arrived")


def _begin(response: Any, url: str, part: Path, have: int) -> tuple[int, int | None]:
    """Look at the server's answer; return from which byte it goes on and how many there are in the end."""
    status = response.status_code
    if status == 416:
        _restart(part)
        raise _UnfinishedError("the server refused the range; starting anew")
    if status in _RETRY_STATUS:
        raise _UnfinishedError(f"the server answered {status}")
    if status not in (200, 206):
        raise DataError(f"{url}: the server answered {status} {response.reason}; look whether the file has moved")
    length = response.headers.get("Content-Length")
    if status == 206:
        start, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if start.partition("-")[0] != str(have):
            _restart(part)
            raise _UnfinishedError("the server sent another range than asked for; starting anew")
        return have, int(total) if total.isdigit() else None
    size = int(length) if length is not None else None
    part.write_bytes(b"")
    validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
    if validator and validator.startswith("W/"):
        validator = response.headers.get("Last-Modified")  # a weak tag does not promise equal bytes
    _notes(part).write_text(json.dumps({"url": url, "validator": validator, "total": size}), encoding="utf-8")
    if size is not None and shutil.disk_usage(part.parent).free < size:
        free = shutil.disk_usage(part.parent).free
        raise DataError(f"{part.parent}: the file has {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    return 0, size


def _receive(response: Any, part: Path, *, have: int, total: int | None) -> None:
    from tqdm import tqdm

    interval = 0.2 if sys.stderr.isatty() else 10.0
    with (
        part.open("ab") as file,
        tqdm(total=total, initial=have, unit="B", unit_scale=True, desc="download", mininterval=interval) as bar,
    ):
        while chunk := response.raw.read1(_CHUNK, decode_content=False):  # what is there, so that nothing is lost
            file.write(chunk)
            bar.update(len(chunk))


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_notes(part: Path, url: str) -> dict[str, Any]:
    try:
        notes: dict[str, Any] = json.loads(_notes(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if notes.get("url") == url else {}


def _restart(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0

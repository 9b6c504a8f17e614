import hashlib
import shutil
import socket
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pointloom.datasets.download import download
from pointloom.errors import DataError
from tests.datasets.http_server import Served, Server

CONTENT = np.random.default_rng(0).bytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def serve() -> Iterator[Callable[[Served], Server]]:
    servers = []

    def start(served: Served) -> Server:
        servers.append(Server(served))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def fetch(url: str, target: Path, attempts: int = 3) -> str:
    return download(url, target, attempts=attempts, pause_s=0)


Serve = Callable[[Served], Server]


def test_a_whole_file_arrives_with_its_digest_and_leaves_nothing_beside_it(tmp_path: Path, serve: Serve) -> None:
    target = tmp_path / "sub/file.zip"
    assert fetch(serve(Served(CONTENT)).url, target) == DIGEST
    assert target.read_bytes() == CONTENT
    assert [p.name for p in target.parent.iterdir()] == ["file.zip"]


def test_a_transfer_that_breaks_off_goes_on_at_its_last_byte(tmp_path: Path, serve: Serve) -> None:
    served = Served(CONTENT, cut_after=[100_000, 70_000, 0, 1])
    assert fetch(serve(served).url, tmp_path / "file") == DIGEST
    assert served.requests == [None, "bytes=100000-", "bytes=170000-", "bytes=170000-", "bytes=170001-"]
    assert served.sent == len(CONTENT)  # not one byte was sent twice


def test_a_later_run_goes_on_where_the_last_one_gave_up(tmp_path: Path, serve: Serve) -> None:
    served = Served(CONTENT, cut_after=[200_000, 0, 0, 0])
    server = serve(served)
    with pytest.raises(DataError, match=r"gave up after 3 attempts without progress.*200000 bytes are kept"):
        fetch(server.url, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    assert fetch(server.url, tmp_path / "file") == DIGEST
    assert served.sent == len(CONTENT)


def test_a_file_that_changed_meanwhile_is_fetched_anew_and_never_mixed(tmp_path: Path, serve: Serve) -> None:
    served = Served(CONTENT, cut_after=[200_000, 0, 0, 0])
    server = serve(served)
    with pytest.raises(DataError, match="gave up"):
        fetch(server.url, tmp_path / "file")
    served.content, served.etag = CONTENT[::-1], '"two"'
    assert fetch(server.url, tmp_path / "file") == hashlib.sha256(CONTENT[::-1]).hexdigest()


@pytest.mark.parametrize("change", [{"ranges": False}, {"etag": None}, {"etag": 'W/"weak"'}])
def test_servers_that_cannot_continue_are_asked_for_everything_again(
    tmp_path: Path, serve: Serve, change: dict[str, object]
) -> None:
    served = Served(CONTENT, cut_after=[100_000], **change)  # type: ignore[arg-type]
    assert fetch(serve(served).url, tmp_path / "file") == DIGEST
    assert served.sent == 100_000 + len(CONTENT)


def test_a_range_that_was_not_asked_for_is_thrown_away(tmp_path: Path, serve: Serve) -> None:
    served = Served(CONTENT, cut_after=[100_000], lie_about_range=True)
    assert fetch(serve(served).url, tmp_path / "file") == DIGEST
    assert served.requests == [None, "bytes=100000-", None]


def test_a_passing_error_of_the_server_is_tried_again(tmp_path: Path, serve: Serve) -> None:
    served = Served(CONTENT, statuses=[503, 429, 200])
    assert fetch(serve(served).url, tmp_path / "file") == DIGEST
    assert len(served.requests) == 3


def test_a_missing_file_is_said_at_once(tmp_path: Path, serve: Serve) -> None:
    served = Served(CONTENT, statuses=[404, 404])
    with pytest.raises(DataError, match="answered 404"):
        fetch(serve(served).url, tmp_path / "file")
    assert len(served.requests) == 1


def test_a_server_that_is_not_there_ends_after_all_attempts(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: every connection is refused
        url = f"http://127.0.0.1:{held.getsockname()[1]}/file"
        with pytest.raises(DataError, match=r"gave up after 2 attempts.*browser"):
            fetch(url, tmp_path / "file", attempts=2)


def test_a_disk_that_is_too_small_is_said_before_the_transfer(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 0, 10))
    served = Served(CONTENT)
    with pytest.raises(DataError, match=r"0\.0 GB are free"):
        fetch(serve(served).url, tmp_path / "file")

import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from pointloom.datasets import CARDS, OBJECT_DATASETS
from pointloom.datasets.card import Archive
from pointloom.datasets.local import describe, find_local, get_dataset
from pointloom.errors import DataError, ParamsError
from pointloom.stages.prepare import Source
from tests.datasets.http_server import Served, Server


def archive_bytes(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"theset/{name}", data)
    return buffer.getvalue()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A free data set ``shapenetpart`` on a server of this machine."""
    content = Served(archive_bytes(a=b"first", b=b"second" * 1000))
    server = Server(content)
    archive = Archive(url=server.url, folder="theset", size_mb=1)
    card = replace(CARDS["shapenetpart"], archives={"trainval": archive})
    monkeypatch.setitem(CARDS, "shapenetpart", card)
    yield content
    server.close()


def test_stage_prepare_knows_exactly_these_data_sets() -> None:
    assert {*get_args(Source)} == {"folder", "synthetic", "scans", "synthetic_rooms"} | CARDS.keys()


@pytest.mark.parametrize("name", CARDS)
def test_every_card_is_complete(name: str) -> None:
    card = CARDS[name]
    assert card.name == name
    assert card.licence
    assert "http" in card.source
    assert card.trees.keys() == card.markers.keys() >= card.archives.keys()
    if name in OBJECT_DATASETS:
        assert set(OBJECT_DATASETS[name].variants) == card.trees.keys()


def test_the_list_shows_licence_source_and_what_is_here(derived: Path) -> None:
    text = "\n".join(describe(derived))
    for card in CARDS.values():
        assert card.title in text
        assert card.licence in text
        assert card.source in text
    assert f"resampled in {derived / 'modelnet40_normal_resampled_layout'}" in text
    assert "not found: dat" in text
    found = find_local(derived)
    assert found["shapenet55"]["train_test"] == derived / "shapenet55_layout"
    assert found["scanobjectnn"].keys() == {"obj_bg"}
    assert "s3dis" not in found


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    assert find_local(tmp_path) == find_local(tmp_path / "nowhere") == {}


def test_get_downloads_unpacks_and_remembers_the_sum(tmp_path: Path, served: Served) -> None:
    served.cut_after = [500, 700]
    target = get_dataset("shapenetpart", tmp_path)
    assert (target / "a").read_bytes() == b"first"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["archive.zip.sha256", "theset"]
    requests = len(served.requests)
    assert requests == 3
    get_dataset("shapenetpart", tmp_path)
    assert len(served.requests) == requests  # it is there already


def test_an_archive_that_changed_since_the_first_download_is_refused(tmp_path: Path, served: Served) -> None:
    target = get_dataset("shapenetpart", tmp_path, keep_archive=True)
    for path in target.iterdir():
        path.unlink()
    target.rmdir()
    (tmp_path / "archive.zip").unlink()
    served.content = archive_bytes(a=b"other")
    with pytest.raises(DataError, match=r"SHA-256.*remove .*sha256 to accept it"):
        get_dataset("shapenetpart", tmp_path)
    assert not target.exists()


def test_a_published_sum_that_does_not_fit_is_refused(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = CARDS["shapenetpart"]
    monkeypatch.setitem(
        CARDS, "shapenetpart", replace(card, archives={"trainval": replace(card.archives["trainval"], sha256="0" * 64)})
    )
    with pytest.raises(DataError, match="expected 0000"):
        get_dataset("shapenetpart", tmp_path)
    assert not (tmp_path / "theset").exists()


def test_a_damaged_archive_is_not_remembered_as_the_right_one(tmp_path: Path, served: Served) -> None:
    good = served.content
    served.content = good[:-30]
    with pytest.raises(DataError, match="damaged or no zip archive"):
        get_dataset("shapenetpart", tmp_path)
    (tmp_path / "archive.zip").unlink()
    served.content, served.etag = good, '"two"'
    assert get_dataset("shapenetpart", tmp_path).is_dir()


def test_data_sets_whose_owner_wants_to_be_asked_say_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be downloaded by a program.*signed form") as caught:
        get_dataset("scanobjectnn", tmp_path)
    assert "hkust-vgd.github.io" in str(caught.value)
    with pytest.raises(ParamsError, match="variants to download are resampled, h5; got None"):
        get_dataset("modelnet40", tmp_path)
    with pytest.raises(ParamsError, match="unknown data set 'modelnet'"):
        get_dataset("modelnet", tmp_path)

import hashlib
import stat
import zipfile
from pathlib import Path

import pytest

from pointloom.datasets.unpack import unpack_zip
from pointloom.errors import DataError


def write_zip(path: Path, files: dict[str, bytes], *, link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    return path


def test_the_top_folder_becomes_the_target_without_macos_leftovers(tmp_path: Path) -> None:
    files = {"set/a.txt": b"a", "set/sub/b.txt": b"bb", "__MACOSX/set/._a.txt": b"x", "set/": b"", "set/.DS_Store": b""}
    path = write_zip(tmp_path / "a.zip", files)
    assert unpack_zip(path, tmp_path / "out/set", top="set", md5={}) == 2
    found = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in tmp_path.glob("out/**/*.txt")}
    assert found == {"set/a.txt": b"a", "set/sub/b.txt": b"bb"}


@pytest.mark.parametrize(
    "name", ["../evil.txt", "set/../../evil.txt", "/evil.txt", "set\\..\\evil.txt", "C:/evil.txt", "set/a:b.txt"]
)
def test_a_path_that_leads_out_of_the_folder_stops_everything(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("set/good.txt", b"good")
        info = zipfile.ZipInfo("x")
        info.filename = name
        archive.writestr(info, b"evil")
    with pytest.raises(DataError, match=r"leads out of its folder.*nothing was unpacked"):
        unpack_zip(path, tmp_path / "out/set", top="set", md5={})
    assert not list(tmp_path.rglob("*evil*"))
    assert not (tmp_path / "out/set").exists()


def test_links_and_files_that_are_in_it_twice_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"set/a.txt": b"a"}, link="set/link")
    with pytest.raises(DataError, match=r"set/link.*link or a device"):
        unpack_zip(path, tmp_path / "set", top="set", md5={})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("set/a.txt", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("set/a.txt", b"2")
    with pytest.raises(DataError, match="is in it twice"):
        unpack_zip(path, tmp_path / "set", top="set", md5={})
    assert not (tmp_path / "set").exists()


def test_a_truncated_a_corrupted_and_an_empty_archive_leave_nothing(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"set/a.bin": bytes(range(256)) * 400, "set/b.bin": b"b" * 1000})
    whole = path.read_bytes()
    corrupted = bytearray(whole)
    corrupted[60] ^= 0xFF
    for data in (whole[:-100], whole[:50], bytes(corrupted), b"<html>403</html>", b""):
        path.write_bytes(data)
        with pytest.raises(DataError, match="damaged or no zip archive"):
            unpack_zip(path, tmp_path / "set", top="set", md5={})
        assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]
    with pytest.raises(DataError, match="no files in it"):
        unpack_zip(write_zip(path, {}), tmp_path / "set", top="set", md5={})


def test_files_outside_of_the_top_folder_are_not_the_published_archive(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"set/a.txt": b"a", "other/b.txt": b"b"})
    with pytest.raises(DataError, match=r"expected everything in the folder set, got other/b\.txt"):
        unpack_zip(path, tmp_path / "set", top="set", md5={})


def test_a_wrong_or_missing_file_keeps_the_older_folder(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/old.txt").write_text("old")
    path = write_zip(tmp_path / "a.zip", {"set/a.txt": b"a"})
    for md5 in ({"a.txt": hashlib.md5(b"b").hexdigest()}, {"b.txt": "0"}):
        with pytest.raises(DataError, match="not the published data"):
            unpack_zip(path, tmp_path / "set", top="set", md5=md5)
        assert [p.name for p in (tmp_path / "set").iterdir()] == ["old.txt"]
    assert unpack_zip(path, tmp_path / "set", top="set", md5={"a.txt": hashlib.md5(b"a").hexdigest()}) == 1
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["a.txt"]

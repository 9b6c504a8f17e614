from pathlib import Path

import numpy as np
import pytest

from pointloom.data.clouds import Cloud, load_cloud, looks_numeric
from pointloom.data.quarantine import RejectedError

COORD = np.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3.5]])
COLOR = np.array([[255, 0, 10], [0, 255, 20], [9, 8, 7], [1, 2, 3]], dtype=np.uint8)
NORMAL = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0], [0.6, 0.8, 0]], dtype=np.float32)


def assert_cloud(cloud: Cloud, *, color: bool, normal: bool) -> None:
    np.testing.assert_allclose(cloud.coord, COORD)
    assert (cloud.color is not None) == color
    assert (cloud.normal is not None) == normal
    if cloud.color is not None:
        np.testing.assert_array_equal(cloud.color, COLOR)
    if cloud.normal is not None:
        np.testing.assert_allclose(cloud.normal, NORMAL)


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("normal", [False, True])
@pytest.mark.parametrize("suffix", ["npy", "txt", "xyz", "pts", "csv", "asc"])
def test_columns_are_told_apart(tmp_path: Path, suffix: str, color: bool, normal: bool) -> None:
    table = np.concatenate([COORD, *([COLOR] if color else []), *([NORMAL] if normal else [])], axis=1)
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, table)
    else:
        np.savetxt(path, table, delimiter="," if suffix == "csv" else " ", fmt="%.6g")
        if suffix == "pts":
            path.write_text(f"{len(table)}\n" + path.read_text())
    assert_cloud(load_cloud(path), color=color, normal=normal)


@pytest.mark.parametrize(
    "header", ["//X Y Z Nx Ny Nz R G B", "# a comment\nx,y,z,nx,ny,nz,r,g,b", "x y z nx ny nz r g b"]
)
def test_header_lines_are_skipped_and_normals_may_come_first(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.txt"
    np.savetxt(path, np.concatenate([COORD, NORMAL, COLOR], axis=1), fmt="%.6g")
    path.write_text(f"{header}\n{path.read_text()}")
    assert_cloud(load_cloud(path), color=True, normal=True)


def test_npz_reads_channels_and_the_usual_names(tmp_path: Path) -> None:
    channels = {name: COLOR[:, i] / np.float32(255) for i, name in enumerate("RGB")}
    np.savez(tmp_path / "a.npz", coords=COORD, **channels)
    assert_cloud(load_cloud(tmp_path / "a.npz"), color=True, normal=False)
    np.savez(tmp_path / "b.npz", points=COORD, colors=COLOR, normals=NORMAL)
    assert_cloud(load_cloud(tmp_path / "b.npz"), color=True, normal=True)
    np.savez(tmp_path / "c.npz", things=COORD)
    with pytest.raises(RejectedError, match=r"no coordinates among its arrays \['things'\]"):
        load_cloud(tmp_path / "c.npz")


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RejectedError, match=r"unreadable: .* pickled objects are never loaded$"):
        load_cloud(tmp_path / "a.npy")


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_pcd_unpacks_colours_and_drops_points_without_a_return(tmp_path: Path, encoding: str) -> None:
    from pypcd4 import Encoding, PointCloud

    packed = PointCloud.encode_rgb(COLOR)
    table = np.concatenate([COORD.astype(np.float32), packed[:, None]], axis=1)
    table = np.concatenate([table, [[np.nan] * 3 + [0]]]).astype(np.float32)
    PointCloud.from_xyzrgb_points(table).save(tmp_path / "a.pcd", encoding=Encoding(encoding))
    cloud = load_cloud(tmp_path / "a.pcd")
    assert cloud.warnings == ("invalid_points_dropped",)
    np.testing.assert_allclose(cloud.coord, COORD)
    if encoding != "ascii":  # the library writes too few digits for the bits of a packed colour
        np.testing.assert_array_equal(cloud.color, COLOR)


def test_ascii_pcd_may_use_several_blanks(tmp_path: Path) -> None:
    header = "# .PCD v.7\nVERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 2\nHEIGHT 1\n"
    text = header + "VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 2\nDATA ascii\n1.5     -2\t 3 \n0 0    0\n"
    (tmp_path / "a.pcd").write_text(text)
    assert load_cloud(tmp_path / "a.pcd").coord.tolist() == [[1.5, -2, 3], [0, 0, 0]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xyz", "", "empty: there is no line with three numbers"),
        ("a.xyz", "hello\nworld\n", "unreadable: there is no line"),
        ("a.xyz", "1 2 3\n4 5\n", "unreadable: it is no valid .xyz file: ValueError: .* to 2 at row 2$"),
        ("a.pts", "3\n1 2 3\n4 5 6\n", "unreadable: the file is cut off: 2 points of 3; copy it again"),
        ("a.xyz", "1 2 3\n4 5 nan\n", "not_finite: 1 of 2 points"),
        ("a.xyz", "1 2 3\n1 2 3\n", "zero_extent: all 2 points"),
        ("a.xyz", "1 2 3\n4 5 1e300\n", "not_finite: a coordinate is 1e\\+300"),
        ("a.npy", "junk", "unreadable: it is no valid .npy file: it does not hold an array of numbers"),
        ("a.npz", "junk", "unreadable"),
        ("a.pcd", "junk", "unreadable"),
    ],
)
def test_broken_clouds_are_refused_with_the_true_reason(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(RejectedError, match=message):
        load_cloud(tmp_path / name)


def test_wrong_array_shapes_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 2)))
    with pytest.raises(RejectedError, match=r"expected numbers of shape \(N, 3 or more\), got float64 \(5, 2\)"):
        load_cloud(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.zeros((3, 500)))
    with pytest.raises(RejectedError, match=r"a row per point, got \(3, 500\): it seems to be transposed"):
        load_cloud(tmp_path / "a.npy")


def test_numbers_before_points_are_counts_in_pts_files_only(tmp_path: Path) -> None:
    for name in ("a.pts", "a.txt"):
        (tmp_path / name).write_text("2\n1 2 3\n4 5 6\n")
        assert len(load_cloud(tmp_path / name).coord) == 2
    (tmp_path / "a.txt").write_text("2024\n1 2 3\n4 5 6\n")
    assert len(load_cloud(tmp_path / "a.txt").coord) == 2


@pytest.mark.parametrize("kind", ["ascii", "binary"])
def test_a_pcd_file_that_is_cut_off_is_no_smaller_cloud(tmp_path: Path, kind: str) -> None:
    header = "VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 5\nHEIGHT 1\n"
    header += f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 5\nDATA {kind}\n"
    points = np.arange(9, dtype=np.float32).reshape(3, 3)
    body = points.tobytes() if kind == "binary" else "\n".join(" ".join(map(str, p)) for p in points).encode()
    (tmp_path / "a.pcd").write_bytes(header.encode() + body)
    with pytest.raises(RejectedError, match=r"unreadable: the file is cut off: 3 points of 5; copy it again"):
        load_cloud(tmp_path / "a.pcd")


def test_lists_of_names_do_not_look_like_coordinates() -> None:
    assert not looks_numeric("chair\ntable\nlamp\n")
    assert not looks_numeric("chair/1.off\nchair/2.off\n")
    assert looks_numeric("# scan\nx y z\n1 2 3\n")
    assert looks_numeric("1,2,3,0.5,0.5,0.7\n")

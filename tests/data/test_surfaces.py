import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from gltf_files import QUAD, image_uri, png, quad, write_glb, write_gltf
from numpy.typing import NDArray

from pointloom.data.clouds import Cloud
from pointloom.data.quarantine import RejectedError
from pointloom.data.sampling import Sample, sample_surface
from pointloom.data.surfaces import Surface, load_surface

CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [250, 200, 10]]], dtype=np.uint8)  # rows from the top


def load_mesh(path: Path, *, root: Path | None = None) -> Surface:
    surface = load_surface(path, root=root)
    assert isinstance(surface, Surface)
    return surface


def sample(path: Path, *, root: Path | None = None) -> Sample:
    return sample_surface(load_mesh(path, root=root), 500, generator=np.random.default_rng(0))


def corner_of(coord: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The colour that the specification gives each point of the textured quad."""
    column, row = (coord[:, 0] >= 0.5).astype(int), (coord[:, 1] < 0.5).astype(int)
    return CORNERS[row, column]


@pytest.mark.parametrize("suffix", ["off", "obj", "ply", "stl", "glb", "gltf", "dae"])
def test_every_mesh_format_gives_the_same_triangles(tmp_path: Path, suffix: str) -> None:
    box = trimesh.creation.box(extents=(1, 2, 3))
    files = box.export(file_type=suffix)
    files = files if isinstance(files, dict) else {f"box.{suffix}": files}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
    surface = load_mesh(next(tmp_path.glob(f"*.{suffix}")))
    assert len(surface.faces) == 12
    corners = surface.vertices[surface.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    assert area == pytest.approx(2 * (1 * 2 + 2 * 3 + 1 * 3))
    np.testing.assert_allclose(np.ptp(surface.vertices, axis=0), [1, 2, 3], rtol=1e-6)


def test_glb_texture_is_the_right_way_up(tmp_path: Path) -> None:
    material = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
    path = write_glb(tmp_path / "a.glb", *quad(material=material, images=[{"uri": image_uri(CORNERS)}]))
    points = sample(path)
    np.testing.assert_array_equal(points.color, corner_of(points.coord))


def test_gltf_factor_is_linear_and_multiplies_the_texture(tmp_path: Path) -> None:
    # linear 0.2158605 is sRGB 128
    factor = [0.2158605, 1.0, 0.0, 1.0]
    plain = write_gltf(tmp_path / "a.gltf", *quad(material={"pbrMetallicRoughness": {"baseColorFactor": factor}}))
    np.testing.assert_allclose(sample(plain).color[0], [128, 255, 0], atol=1)
    both = {"baseColorFactor": factor, "baseColorTexture": {"index": 0}}
    white = np.full((2, 2, 3), 255, dtype=np.uint8)
    material = {"pbrMetallicRoughness": both}
    textured = write_gltf(tmp_path / "b.gltf", *quad(material=material, images=[{"uri": image_uri(white)}]))
    np.testing.assert_allclose(sample(textured).color[0], [128, 255, 0], atol=1)


def test_gltf_vertex_colors_are_linear_and_interpolated(tmp_path: Path) -> None:
    color = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]], dtype=np.float32)
    material = {"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 1]}}
    points = sample(write_glb(tmp_path / "a.glb", *quad(vertex_color=color, material=material)))
    linear = ((points.color[:, 0] / 255 + 0.055) / 1.055) ** 2.4
    middle = points.color[:, 0] > 30  # away from the linear part of the curve
    np.testing.assert_allclose(linear[middle], points.coord[middle, 0], atol=0.01)
    assert (points.color[:, 1:] == 0).all()


def test_scene_transforms_are_applied_and_mirrors_keep_normals_outward(tmp_path: Path) -> None:
    node = {"translation": [10, 0, 0], "scale": [-2, 1, 1]}
    points = sample(write_glb(tmp_path / "a.glb", *quad(node=node)))
    assert points.coord[:, 0].min() > 7.9
    assert points.coord[:, 0].max() < 10.1
    np.testing.assert_allclose(points.normal, np.tile([0, 0, 1], (500, 1)), atol=1e-6)


def test_multi_file_gltf_reads_its_buffer_and_its_texture(tmp_path: Path) -> None:
    (tmp_path / "my texture.png").write_bytes(png(CORNERS))
    material = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
    parts = quad(material=material, images=[{"uri": "my%20texture.png"}], buffer_uri="quad.bin")
    points = sample(write_gltf(tmp_path / "a.gltf", *parts))
    np.testing.assert_array_equal(points.color, corner_of(points.coord))


def test_missing_buffer_is_named(tmp_path: Path) -> None:
    write_gltf(tmp_path / "a.gltf", *quad(buffer_uri="quad.bin"))
    (tmp_path / "quad.bin").unlink()
    with pytest.raises(RejectedError, match=r"missing_file: it refers to quad\.bin, which is not there"):
        load_surface(tmp_path / "a.gltf")


def test_missing_texture_keeps_the_shape_with_its_plain_colour_and_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.mtl").write_text("newmtl m\nKd 1 0 0\nmap_Kd nowhere.png\n")
    (tmp_path / "a.obj").write_text("mtllib a.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/1\n")
    assert load_mesh(tmp_path / "a.obj").warnings == ("texture_missing",)
    assert sample(tmp_path / "a.obj").color[0].tolist() == [255, 0, 0]
    material = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "baseColorFactor": [0, 0, 1, 1]}}
    path = write_gltf(tmp_path / "a.gltf", *quad(material=material, images=[{"uri": "nowhere.png"}]))
    assert load_mesh(path).warnings == ("texture_missing",)
    assert sample(path).color[0].tolist() == [0, 0, 255]


def test_a_damaged_texture_is_a_warning_and_no_lost_shape(tmp_path: Path) -> None:
    random = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "cut.png").write_bytes(png(random)[:3000])
    material = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "baseColorFactor": [0, 1, 0, 1]}}
    path = write_gltf(tmp_path / "a.gltf", *quad(material=material, images=[{"uri": "cut.png"}]))
    assert load_mesh(path).warnings == ("texture_damaged",)
    assert sample(path).color[0].tolist() == [0, 255, 0]


def test_obj_with_texture_and_plain_colours(tmp_path: Path) -> None:
    (tmp_path / "t.png").write_bytes(png(CORNERS))
    (tmp_path / "a.mtl").write_text("newmtl textured\nKd 0.5 0.5 0.5\nmap_Kd t.png\nnewmtl plain\nKd 0.2 0.4 0.6\n")
    lines = ["mtllib a.mtl", "v 0 0 0", "v 1 0 0", "v 1 1 0", "v 0 1 0", "v 5 0 0", "v 6 0 0", "v 6 1 0"]
    lines += ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1", "usemtl textured", "f 1/1 2/2 3/3", "f 1/1 3/3 4/4"]
    (tmp_path / "a.obj").write_text("\n".join([*lines, "usemtl plain", "f 5/1 6/2 7/3", ""]))
    points = sample(tmp_path / "a.obj")
    plain = points.coord[:, 0] > 2
    assert 0.2 < plain.mean() < 0.5  # a third of the area
    assert np.unique(points.color[plain], axis=0).tolist() == [[51, 102, 153]]
    np.testing.assert_array_equal(points.color[~plain], corner_of(points.coord[~plain]))


def test_textures_are_found_where_gazebo_models_keep_them_but_not_outside_the_source(tmp_path: Path) -> None:
    meshes = tmp_path / "model/meshes"
    meshes.mkdir(parents=True)
    (tmp_path / "model/materials/textures").mkdir(parents=True)
    (tmp_path / "model/materials/textures/T.png").write_bytes(png(CORNERS))
    material = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
    path = write_gltf(meshes / "a.gltf", *quad(material=material, images=[{"uri": "t.png"}]))
    points = sample(path, root=tmp_path)
    np.testing.assert_array_equal(points.color, corner_of(points.coord))
    assert load_mesh(path, root=meshes).warnings == ("texture_missing",)


@pytest.mark.parametrize(("kind", "suffix"), [("vertex", "ply"), ("face", "ply"), ("vertex", "obj")])
def test_vertex_and_face_colours_come_back_exactly(tmp_path: Path, kind: str, suffix: str) -> None:
    box = trimesh.creation.box()
    colors = np.tile([10, 100, 200, 255], (len(box.vertices if kind == "vertex" else box.faces), 1)).astype(np.uint8)
    box.visual = trimesh.visual.ColorVisuals(mesh=box, **{f"{kind}_colors": colors})
    box.export(tmp_path / f"a.{suffix}")
    assert np.unique(sample(tmp_path / f"a.{suffix}").color, axis=0).tolist() == [[10, 100, 200]]


def test_surface_without_colour_is_neutral_grey(tmp_path: Path) -> None:
    trimesh.creation.box().export(tmp_path / "a.stl")
    assert np.unique(sample(tmp_path / "a.stl").color).tolist() == [160]


def test_ply_without_faces_is_a_cloud_with_its_colours_and_normals(tmp_path: Path) -> None:
    header = "ply\nformat ascii 1.0\nelement vertex 2\n"
    properties = [f"property float {n}\n" for n in ("x", "y", "z", "nx", "ny", "nz")]
    properties += [f"property uchar {n}\n" for n in ("red", "green", "blue")]
    body = "0 0 0 0 0 1 1 2 3\n1 2 3 0 1 0 4 5 6\n"
    (tmp_path / "a.ply").write_text(header + "".join(properties) + "end_header\n" + body)
    cloud = load_surface(tmp_path / "a.ply")
    assert isinstance(cloud, Cloud)
    assert cloud.coord.tolist() == [[0, 0, 0], [1, 2, 3]]
    assert cloud.color is not None
    assert cloud.color.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert cloud.normal is not None
    assert cloud.normal.tolist() == [[0, 0, 1], [0, 1, 0]]


def test_broken_inputs_are_refused_with_the_true_reason(tmp_path: Path) -> None:
    def reason(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RejectedError) as error:
            load_surface(tmp_path / name)
        return str(error.value)

    glb = write_glb(tmp_path / "whole.glb", *quad()).read_bytes()
    nan = QUAD.copy()
    nan[1, 0] = np.nan
    bad_json = json.dumps(quad()[0])[:-20].encode()
    assert reason("cut.glb", glb[:-30]).startswith("unreadable: the file is cut off")
    assert reason("page.glb", b"<html>404</html>").startswith("unreadable: a .glb file begins with 'glTF'")
    assert reason("bad.gltf", bad_json).startswith("unreadable: its JSON part is invalid")
    assert reason("nan.glb", write_glb(tmp_path / "x.glb", *quad(positions=nan)).read_bytes()).startswith(
        "not_finite: 1 of 4 vertices"
    )
    flat = write_glb(tmp_path / "x.glb", *quad(positions=np.zeros_like(QUAD))).read_bytes()
    assert reason("zero.glb", flat).startswith("zero_extent: all 4 vertices are in one place")
    assert reason("junk.stl", b"junk" * 50).startswith("unreadable: the file is cut off: 200 bytes of")
    assert reason("flat.obj", b"v 0 0\nv 1 0\nv 0 1\nf 1 2 3\n").startswith("unreadable")
    assert reason("junk.off", b"\x00\x01\x02").startswith("unreadable: a .off file is text")
    assert reason("binary.obj", b"\x7fELF\x00\x01\x02").startswith("unreadable: a .obj file is text")
    assert reason("huge.obj", b"v 0 0 1e300\nv 1 0 0\nv 0 1 0\nf 1 2 3\n").startswith(
        "not_finite: a coordinate is 1e+300"
    )
    assert reason("empty.obj", b"# nothing\n").startswith(("unreadable", "empty"))
    assert reason("index.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n").startswith("unreadable")


@pytest.mark.parametrize("suffix", ["off", "ply"])
def test_text_meshes_that_are_cut_off_are_no_smaller_meshes(tmp_path: Path, suffix: str) -> None:
    sphere = trimesh.creation.icosphere(2)
    text = sphere.export(file_type=suffix, **({"encoding": "ascii"} if suffix == "ply" else {}))
    whole = (text if isinstance(text, str) else text.decode()).splitlines(keepends=True)
    path = tmp_path / f"a.{suffix}"
    path.write_text("".join(whole))
    assert len(load_mesh(path).faces) == len(sphere.faces)
    path.write_text("".join(whole).replace("\n", "\r\n") + "\r\n")
    assert len(load_mesh(path).faces) == len(sphere.faces)
    path.write_text("".join(whole[:-100]))
    with pytest.raises(RejectedError, match=r"unreadable: the file is cut off: \d+ lines of \d+; copy it again"):
        load_surface(path)


def test_an_obj_file_that_ends_before_its_faces_is_no_cloud(tmp_path: Path) -> None:
    points = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
    (tmp_path / "a.obj").write_text(points)
    assert isinstance(load_surface(tmp_path / "a.obj"), Cloud)
    (tmp_path / "a.obj").write_text(points + "vt 0 0\nvt 1 0\n")
    with pytest.raises(RejectedError, match="texture coordinates but no faces: is it cut off"):
        load_surface(tmp_path / "a.obj")


def test_off_files_may_have_comments_anywhere_and_a_glued_header(tmp_path: Path) -> None:
    (tmp_path / "a.off").write_text(
        "# from\nOFF3 1 0 # counts\n# first\n0 0 0\n1 0 0\n\n0 1 0 # last\n3 0 1 2\n# end\n"
    )
    assert load_mesh(tmp_path / "a.off").faces.tolist() == [[0, 1, 2]]


def test_undecoded_draco_is_not_mistaken_for_a_shape(tmp_path: Path) -> None:
    description, data = quad(positions=np.zeros_like(QUAD))
    description["extensionsUsed"] = ["KHR_draco_mesh_compression"]
    with pytest.raises(RejectedError, match=r"zero_extent: .*pip install dracopy"):
        load_surface(write_gltf(tmp_path / "a.gltf", description, data))

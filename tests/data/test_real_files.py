"""Traps of real files; the folder with them is not part of the repository."""

from pathlib import Path

import numpy as np
import pytest

from pointloom.data.clouds import Cloud, load_cloud
from pointloom.data.folder import list_folder
from pointloom.data.intake import Intake, up_axis
from pointloom.data.quarantine import RejectedError
from pointloom.data.sampling import sample_cloud, sample_surface
from pointloom.data.surfaces import Surface, load_surface


def surface_of(path: Path) -> Surface:
    surface = load_surface(path, root=path.parents[2])
    assert isinstance(surface, Surface)
    return surface


def mean_color(path: Path) -> list[int]:
    sample = sample_surface(surface_of(path), 2000, generator=np.random.default_rng(0))
    return [int(value) for value in sample.color.mean(axis=0)]


@pytest.mark.parametrize(
    ("name", "num_faces"),
    [
        ("trimesh_models/whitespace.off", 12),
        ("trimesh_models/comments.off", 12),
        ("trimesh_models/ballA.off", 3796),
        ("trimesh_models/busted.STL", 3878),
        ("trimesh_models/featuretype.STL", 3476),
        ("trimesh_models/bunny.ply", 16301),
        ("trimesh_models/fandisk.obj", 5750),
        ("trimesh_models/duck.dae", 4212),
        ("trimesh_models/Duck.glb", 4212),
        ("trimesh_models/CesiumMilkTruck.glb", 3624),
        ("draco_gltf/banana.gltf", 104),
        ("draco_gltf/police-car.gltf", 2200),
        ("kaykit_gltf_multifile/chair_B.gltf", 384),
        ("kaykit_obj_textured/chair_A.obj", 308),
    ],
)
def test_meshes_are_read_completely(shared: Path, name: str, num_faces: int) -> None:
    surface = surface_of(shared / "data/objects" / name)
    assert len(surface.faces) == num_faces
    assert np.ptp(surface.vertices, axis=0).min() > 0


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("trimesh_models/Duck.glb", (240, 180, 0), (255, 230, 20)),  # yellow
        ("trimesh_models/fuze.obj", (110, 30, 40), (150, 60, 75)),  # "fuze uv.jpg" is really fuze_uv.jpg
        ("trimesh_models/fuze_ascii.ply", (110, 30, 40), (150, 60, 75)),
        ("draco_gltf/banana.gltf", (230, 200, 120), (255, 230, 160)),
        ("google_scanned_objects/chefmate_8_frypan/chefmate_8_frypan.obj", (40, 40, 40), (90, 90, 90)),
        ("kaykit_obj_textured/couch.obj", (80, 140, 190), (115, 175, 225)),  # blue
        ("kaykit_gltf_multifile/couch_pillows.gltf", (225, 150, 60), (255, 185, 105)),
    ],
)
def test_colours_are_those_of_the_texture(shared: Path, name: str, low: tuple[int, ...], high: tuple[int, ...]) -> None:
    color = mean_color(shared / "data/objects" / name)
    assert all(a <= value <= b for a, value, b in zip(low, color, high, strict=True)), color


def test_a_scan_with_a_huge_texture_is_banana_yellow(shared: Path) -> None:
    red, green, blue = mean_color(shared / "data/objects/ycb_scans/YcbBanana/textured_simple_reoriented.obj")
    assert red > 170
    assert green > 140
    assert blue < 60


@pytest.mark.parametrize(
    "name", ["ycb_scans/YcbMustardBottle/textured_simple_reoriented.obj", "trimesh_models/chair_model.obj"]
)
def test_missing_materials_are_a_warning(shared: Path, name: str) -> None:
    assert surface_of(shared / "data/objects" / name).warnings == ("texture_missing",)


def test_invalid_json_is_blamed_on_the_right_file_and_place(shared: Path) -> None:
    path = shared / "data/objects/broken_files/popsicle-chocolate_invalid_json.gltf"
    with pytest.raises(RejectedError, match=r"unreadable: its JSON part is invalid: .*column 4635"):
        load_surface(path)


def test_empty_ply_is_refused(shared: Path) -> None:
    with pytest.raises(RejectedError, match="empty: the file has neither faces nor points"):
        load_surface(shared / "data/objects/trimesh_models/empty.ply")


@pytest.mark.parametrize(
    ("name", "num"), [("points_ascii_with_lists", 5), ("points_bin", 5), ("points_emptyface", 1024)]
)
def test_ply_without_faces_are_clouds(shared: Path, name: str, num: int) -> None:
    cloud = load_surface(shared / f"data/objects/trimesh_models/{name}.ply")
    assert isinstance(cloud, Cloud)
    assert len(cloud.coord) == num


@pytest.mark.parametrize(
    ("name", "num", "color", "normal"),
    [
        ("trimesh_models/points_agisoft.xyz", 100, True, False),
        ("trimesh_models/points_cloudcompare.xyz", 101, True, False),
        ("pointe_npz/pc_corgi.npz", 4096, True, False),
        ("furniture_parts/parts_txt/desk_mikael_1064.txt", 2499, False, True),
    ],
)
def test_clouds_are_read_with_their_columns(shared: Path, name: str, num: int, color: bool, normal: bool) -> None:
    cloud = load_cloud(shared / "data/objects" / name)
    assert len(cloud.coord) == num
    assert (cloud.color is not None, cloud.normal is not None) == (color, normal)


def test_the_field_s_own_cloud_layouts_are_read(shared: Path) -> None:
    cloud = load_cloud(shared / "data/derived/modelnet40_normal_resampled_layout/chair/chair_0001.txt")
    assert len(cloud.coord) == 10000
    assert cloud.normal is not None
    path = next((shared / "data/derived/shapenet55_layout/shapenet_pc").glob("*.npy"))
    assert load_cloud(path).coord.shape == (8192, 3)


def test_organised_scans_lose_their_invalid_points_only(shared: Path) -> None:
    cloud = load_cloud(shared / "data/scenes/pcl_tutorials/region_growing_rgb_tutorial.pcd")
    assert len(cloud.coord) == 259847
    assert cloud.warnings == ("invalid_points_dropped",)
    assert cloud.color is not None
    assert cloud.color.std() > 30
    sample = sample_cloud(cloud, 256, generator=np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(sample.normal, axis=1), 1, atol=1e-5)


def test_ascii_scans_with_padded_columns_are_read(shared: Path) -> None:
    assert len(load_cloud(shared / "data/scenes/pcl_tutorials/min_cut_segmentation_tutorial.pcd").coord) == 9311


def test_gazebo_models_find_their_textures(shared: Path) -> None:
    folder = shared / "data/scenes/aws_worlds/raw/models/aws_robomaker_residential_ChairA_01/meshes"
    path = folder / "aws_ChairA_01_visual.DAE"
    surface = load_surface(path, root=folder.parent)
    assert isinstance(surface, Surface)
    assert surface.warnings == ()
    color = sample_surface(surface, 500, generator=np.random.default_rng(0)).color
    assert color.std() > 5
    assert up_axis(path, "auto") == "z"
    assert up_axis(shared / "data/objects/trimesh_models/duck.dae", "auto") == "y"


def test_a_folder_with_lists_has_objects_of_58_classes_only(shared: Path) -> None:
    folder = shared / "data/objects/lowpoly_cc0"
    lists = {"train_list": "lists/train.txt", "test_list": "lists/test.txt"}
    listing = list_folder(folder, test_fraction=0.25, seed=0, **lists)
    assert len(listing.objects) == 1221
    assert len({o.category for o in listing.objects}) == 58
    assert sum(o.split == "test" for o in listing.objects) == 326
    assert listing.failures == []


def test_each_object_in_a_folder_of_its_own_is_no_category(shared: Path) -> None:
    listing = list_folder(shared / "data/objects/kenney_furniture_with_renders", test_fraction=0.25, seed=0)
    assert len(listing.objects) == 30
    assert {o.category for o in listing.objects} == {None}
    assert [f.path for f in listing.failures] == ["chair/chair.fbx", "loungeSofa/loungeSofa.fbx"]


def test_real_meshes_become_objects_in_the_frame(shared: Path) -> None:
    folder = shared / "data/objects/lowpoly_cc0"
    objects = list_folder(folder, test_fraction=0.25, seed=0).objects[::250]
    intake = Intake(folder=folder, num_points=512, seed=0, up="auto", max_file_mb=100.0)
    for source in objects:
        record, points = intake(source)
        assert record.up_axis == "y"
        assert 0.8 < np.linalg.norm(points.coord, axis=1).max() <= 1 + 1e-6
        np.testing.assert_allclose(np.linalg.norm(points.normal, axis=1), 1, atol=1e-5)

import math
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from render_scenes import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    ball,
    boxes,
    draw,
    facing,
    grid,
    letter_f,
    mesh,
    open_renderer,
    surface,
)

from pointloom.data.materials import Material
from pointloom.data.surfaces import Surface
from pointloom.errors import BackendError
from pointloom.render.backend import RENDERERS
from pointloom.render.egl import open_context
from pointloom.render.mesh import AMBIENT, HEADLIGHT, Mesh

each_renderer = pytest.mark.parametrize("name", RENDERERS)


def where(rgb: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Centroid (row, column) of the pixels of one hue, whatever their brightness."""
    hue, values = np.array(color) / np.linalg.norm(color), rgb.astype(float)
    length = np.maximum(np.linalg.norm(values, axis=2), 1e-9)
    return np.argwhere((values @ hue) / length > 0.985).mean(axis=0)


@pytest.mark.parametrize("shape", ["ball", "textured", "letter"])
def test_opengl_and_rays_draw_the_same(shape: str) -> None:
    made = mesh({"ball": ball(), "textured": ball(textured=True), "letter": letter_f()}[shape])
    samples = grid(size=96)
    rgb, depth = draw("egl", made, samples)
    cast_rgb, cast_depth = draw("raycast", made, samples)
    assert np.mean((depth > 0) != (cast_depth > 0)) < 1e-3
    both = (depth > 0) & (cast_depth > 0)
    assert np.quantile(np.abs(depth - cast_depth)[both], 0.999) < 1e-3
    assert np.abs(rgb.astype(int) - cast_rgb).mean() < (2.0 if shape == "textured" else 0.5)


@each_renderer
@pytest.mark.parametrize("supersample", [1, 2, 3])
def test_depth_goes_back_to_the_surface_through_intrinsics_and_pose(name: str, supersample: int) -> None:
    half = np.array([0.5, 0.3, 0.7])
    samples = grid(size=64, supersample=supersample, layout="ulip30")
    _, depth = draw(name, mesh(boxes(((0, 0, 0), tuple(2 * half), RED))), samples)
    K, poses = samples.rig.intrinsics, samples.rig.poses
    for picture, pose in zip(depth, poses, strict=True):
        row, column = np.nonzero(picture)
        z = picture[row, column].astype(float)
        pixels = np.stack([column + 0.5, row + 0.5, np.ones_like(z)])
        x, y, _ = np.linalg.inv(K) @ pixels * z
        point = pose[:3, :3] @ np.stack([x, -y, -z]) + pose[:3, 3:]
        off = np.abs((np.abs(point) / half[:, None]).max(axis=0) - 1)
        assert off.max() < 1e-3  # OpenGL snaps corners to parts of a sample, which shows at the silhouette
        assert np.quantile(off, 0.98) < 1e-5


@each_renderer
def test_an_f_is_upright_and_not_mirrored(name: str) -> None:
    rgb, _ = draw(name, mesh(letter_f()), grid())
    front, back = rgb[11], rgb[9]  # from -Y and from +Y, both from 30 degrees below
    red, green, blue = (where(front, color) for color in (RED, GREEN, BLUE))
    assert red[1] < blue[1] < green[1], "the stem is on the left and the longer arm reaches farther"
    assert green[0] < blue[0] < front.shape[0] / 2 + 5, "the green arm is on top"
    assert where(back, RED)[1] > where(back, GREEN)[1], "seen from behind an F is mirrored"


@each_renderer
def test_a_texture_is_the_right_way_round(name: str) -> None:
    texture = np.array([[RED, GREEN], [BLUE, YELLOW]], dtype=np.uint8).repeat(32, axis=0).repeat(32, axis=1)
    samples = grid()
    corners, faces = facing(samples.rig.poses[4, :3, 3])
    uv = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]) + 3  # repeats do not change anything
    rgb, _ = draw(
        name, mesh(surface(corners, faces, uv=uv, material=Material(np.ones(3, np.float32), texture))), samples
    )
    quarters = {color: where(rgb[4], color) > 31.5 for color in (RED, GREEN, BLUE, YELLOW)}
    assert {color: tuple(below_right) for color, below_right in quarters.items()} == {
        RED: (False, False),
        GREEN: (False, True),
        BLUE: (True, False),
        YELLOW: (True, True),
    }
    np.testing.assert_allclose(rgb[4][28, 28], RED, atol=4)


@each_renderer
@pytest.mark.parametrize("degrees", [0, 30, 60])
def test_brightness_follows_the_angle_and_colours_are_those_of_the_points(name: str, degrees: int) -> None:
    samples = grid(size=64)
    toward = samples.rig.poses[4, :3, 3]
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    corners, faces = facing(turn @ toward, half=0.4)
    plain = Material(np.array([0.5, 0.2, 0.05], np.float32))  # linear
    rgb, _ = draw(name, mesh(surface(corners, faces, material=plain)), samples)
    expected = np.array([188, 124, 63]) * (AMBIENT + HEADLIGHT * math.cos(angle))
    np.testing.assert_allclose(rgb[4][31:33, 31:33].reshape(-1, 3).mean(axis=0), expected, atol=1.5)


@each_renderer
def test_flipped_faces_and_faces_without_area_change_nothing(name: str) -> None:
    made = letter_f()
    flipped = replace(made, faces=made.faces[:, ::-1])
    color = made.face_color
    assert color is not None
    with_needles = replace(
        made,
        faces=np.concatenate([made.faces, [[0, 0, 1], [2, 2, 2]]]),
        face_material=np.zeros(len(made.faces) + 2, np.int64),
        face_color=np.concatenate([color, color[:2]]),
    )
    rgb, depth = draw(name, mesh(made), grid())
    for other in (flipped, with_needles):
        other_rgb, other_depth = draw(name, mesh(other), grid())
        np.testing.assert_array_equal(other_rgb, rgb)
        np.testing.assert_allclose(other_depth, depth, atol=1e-5)


@each_renderer
def test_the_background_is_white_and_has_no_depth(name: str) -> None:
    rgb, depth = draw(name, mesh(letter_f()), grid())
    assert (depth[:, 0] == 0).all()
    assert (rgb[:, 0] == 255).all()
    assert depth.max() <= grid().rig.distance + 1
    assert depth[depth > 0].min() >= grid().rig.distance - 1


@each_renderer
def test_pictures_depend_on_the_mesh_only_and_not_on_those_before(name: str) -> None:
    first = draw(name, mesh(ball(textured=True)), grid())
    draw(name, mesh(letter_f()), grid())
    again = draw(name, mesh(ball(textured=True)), grid())
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_a_library_that_is_not_there_is_an_error_that_says_how_to_get_it() -> None:
    with pytest.raises(BackendError, match=r"EGL does not work \(.*libNoSuch.*apt-get install libegl1"):
        open_context(libegl="libNoSuch.so.9")


@pytest.mark.slow
@each_renderer
def test_memory_stays_the_same_over_many_textured_meshes(name: str) -> None:
    import psutil

    def noisy(i: int) -> Mesh:
        made = trimesh.creation.icosphere(subdivisions=5, radius=0.9)  # 20,480 faces
        texture = np.random.default_rng(i).integers(0, 256, size=(1024, 1024, 3), dtype=np.uint8)
        value: Surface = surface(
            made.vertices, made.faces, uv=made.vertices[:, :2], material=Material(np.ones(3, np.float32), texture)
        )
        return mesh(value)

    renderer, used = open_renderer(name, grid(size=32)), []
    for i in range(60):
        list(renderer.draw(noisy(i)))
        used.append(psutil.Process().memory_info().rss / 1e6)
    assert max(used[40:]) - max(used[:20]) < 25, used  # 5 MB of buffers and textures each would make 200

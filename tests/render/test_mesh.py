from dataclasses import replace

import numpy as np
from render_scenes import ball, letter_f, mesh, surface

from pointloom.data.materials import WHITE_MATERIAL, Material
from pointloom.render.mesh import MAX_TEXTURE, mesh_of

ONES = np.ones(3, dtype=np.float32)


def test_faces_are_sorted_by_texture_and_equal_textures_are_one() -> None:
    first, second = (np.full((4, 4, 3), value, dtype=np.uint8) for value in (10, 200))
    made = replace(
        ball(),
        materials=(Material(ONES, first), WHITE_MATERIAL, Material(ONES * 0.5, first.copy()), Material(ONES, second)),
        face_material=np.arange(len(ball().faces)) % 4,
    )
    value = mesh(made)
    assert [None if b.texture is None else int(b.texture[0, 0, 0]) for b in value.batches] == [10, None, 200]
    assert [b.start for b in value.batches] == [0, *(b.stop for b in value.batches[:-1])]
    assert value.batches[-1].stop == len(made.faces)
    assert value.batches[0].stop == (made.face_material % 2 == 0).sum()


def test_every_face_keeps_its_corners_colours_and_normal() -> None:
    made = letter_f()
    made = replace(
        made,
        materials=(WHITE_MATERIAL, Material(ONES * 0.5, np.zeros((2, 2, 3), np.uint8))),
        face_material=np.arange(len(made.faces)) % 2,
    )
    transform = np.diag([0.5, 0.5, 0.5, 1.0])
    transform[:3, 3] = 1, 2, 3
    value = mesh_of(made, transform)
    order = [i for texture in (0, 1) for i in range(len(made.faces)) if i % 2 == texture]
    assert made.face_color is not None
    for at, face in enumerate(order):
        corners = made.vertices[made.faces[face]] * 0.5 + [1, 2, 3]
        np.testing.assert_allclose(value.corners[at], corners, atol=1e-6)
        cross = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        np.testing.assert_allclose(value.normal[at], cross / np.linalg.norm(cross), atol=1e-6)
        expected = made.face_color[face] * (0.5 if face % 2 else 1.0)
        np.testing.assert_allclose(value.color[at], np.tile(expected, (3, 1)), atol=1e-6)


def test_large_textures_are_scaled_down_and_keep_their_shape_and_orientation() -> None:
    texture = np.zeros((2048, 4096, 3), dtype=np.uint8)
    texture[:1024, :2048, 0] = 255
    (batch,) = mesh(replace(ball(textured=True), materials=(Material(ONES, texture),))).batches
    assert batch.texture is not None
    assert batch.texture.shape == (MAX_TEXTURE // 2, MAX_TEXTURE, 3)
    assert batch.texture[10, 10].tolist() == [255, 0, 0]
    assert batch.texture[-10, -10].tolist() == [0, 0, 0]


def test_bad_texture_coordinates_and_faces_without_area_stay_finite() -> None:
    uv = np.array([[np.nan, 0], [1e7, np.inf], [1e7 + 0.5, 0]])
    value = mesh(surface(np.eye(3), np.array([[0, 1, 2], [1, 1, 2]]), uv=uv))
    assert np.isfinite(value.uv).all()
    assert np.isfinite(value.normal).all()
    assert (value.normal[1] == 0).all()

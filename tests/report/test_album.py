import base64
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA

from pointloom.report.album import Album, component_colors, file_name
from pointloom.report.viewer import MAX_POINTS, pack_cloud


def test_component_colors_are_the_first_three_principal_components_up_to_sign() -> None:
    rng = np.random.default_rng(0)
    feature = rng.normal(size=(2, 300, 10)) * np.array([9, 5, 3, 1, 1, 1, 1, 1, 1, 1])
    color = component_colors(feature).reshape(-1, 3).astype(float)
    parts = PCA(n_components=3).fit_transform(feature.reshape(-1, 10))
    for channel in range(3):
        inside = (color[:, channel] > 31) & (color[:, channel] < 239)  # the ends are clipped
        correlation = np.corrcoef(color[inside, channel], parts[inside, channel])[0, 1]
        assert abs(correlation) > 0.999


def test_features_with_one_channel_still_give_a_color() -> None:
    assert component_colors(np.arange(6.0).reshape(1, 6, 1)).shape == (1, 6, 3)


def test_saved_picture_is_the_drawn_one(tmp_path: Path) -> None:
    album = Album(folder=tmp_path, size=32)
    drawn = album.draw(np.random.default_rng(0).uniform(-0.5, 0.5, size=(200, 3)).astype(np.float32))
    path = album.add("one/two", drawn)
    with Image.open(tmp_path / path) as image:
        read = np.asarray(image.convert("RGB")).astype(int)
    assert read.shape == (32, 32, 3)
    assert np.abs(read - drawn).mean() < 3  # the palette has 64 colours
    assert album.data_uri(path).startswith("data:image/png;base64,")


def test_packed_cloud_is_thinned_and_exact_to_a_step_of_its_scale() -> None:
    rng = np.random.default_rng(0)
    coord = rng.uniform(-1, 1, size=(3 * MAX_POINTS, 3)).astype(np.float32)
    entry = pack_cloud("g", "t", coord, np.zeros((len(coord), 3), dtype=np.uint8))
    read = np.frombuffer(base64.b64decode(entry["coord"]), dtype="<i2").reshape(-1, 3) * entry["scale"]
    assert len(read) <= MAX_POINTS
    np.testing.assert_allclose(read, coord[::3], atol=entry["scale"])


def test_names_of_pictures_differ_where_titles_do_and_are_plain() -> None:
    titles = ["chair", "椅子", "桌子", "a b", "a_b", "a*b", "x" * 300, "x" * 299]
    names = [file_name(title) for title in titles]
    assert len(set(names)) == len(titles)
    assert names[0] == "chair"
    assert all(name.isascii() and len(name) < 120 and "/" not in name and " " not in name for name in names)

"""Pictures of what distilled students guess."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointloom.data.shards import ObjectStore
from pointloom.report.album import Album
from pointloom.report.guesses import HIGH, LOW, guesses, likeness_colors
from pointloom.report.inputs import EncoderRecord
from tests.report.fixtures import write_workspace
from tests.report.test_page import build


def record(store: ObjectStore) -> EncoderRecord:
    """Two objects of two patches: one above, seen and guessed well, one below, hidden and guessed badly."""
    rng = np.random.default_rng(0)
    coord = rng.uniform(-0.3, 0.3, size=(2, 400, 3)).astype(np.float32)
    coord[:, :200, 2] += 0.6
    coord[:, 200:, 2] -= 0.6
    centers = np.broadcast_to(np.array([[0, 0, 0.6], [0, 0, -0.6]], dtype=np.float32), (2, 2, 3))
    samples = {
        "uid": store.uids[:2], "coord": coord, "visible": np.arange(400)[None].repeat(2, 0) < 200, "centers": centers,
        "hidden": np.array([[False, True]] * 2), "cosine": np.array([[1.0, 0.0], [1.0, 0.2]]),
    }  # fmt: skip
    return EncoderRecord("student", {"method": "distill"}, samples=samples)


def test_colors_run_from_red_over_white_to_blue() -> None:
    colors = likeness_colors(np.array([-0.5, 0.0, 0.25, 0.5, 1.0]))
    assert colors[0].tolist() == colors[1].tolist() == list(LOW)
    assert np.abs(colors[2].astype(float) - (np.array(LOW) + 255) / 2).max() <= 1
    assert colors[3].tolist() == [255, 255, 255]
    assert colors[4].tolist() == list(HIGH)


def test_points_have_the_color_of_their_patch_and_the_caption_its_cosine(tmp_path: Path) -> None:
    store = ObjectStore(write_workspace(tmp_path, num_points=64)["dataset"])
    album = Album(folder=tmp_path, size=48)
    first, second = guesses(record(store), store, album)
    assert (first["cosine_visible"], first["cosine_hidden"], first["hidden"]) == (1.0, 0.0, 50.0)
    assert second["cosine_hidden"] == pytest.approx(0.2)
    with Image.open(tmp_path / first["image"]) as image:
        colors = np.asarray(image.convert("RGB"))[:, 96:].astype(float)  # the third of three pictures
    blue, red = (colors[part, :, 2] - colors[part, :, 0] for part in (slice(0, 24), slice(24, 48)))
    assert blue.max() > 100 > blue.min() > -50  # above: blue on white
    assert red.min() < -100
    assert red.max() < 50  # below: red on white


def test_encoders_without_likeness_have_no_pictures_and_the_page_shows_those_with(tmp_path: Path) -> None:
    paths = write_workspace(tmp_path, num_points=64)
    store = ObjectStore(paths["dataset"])
    assert guesses(EncoderRecord("other", {}), store, Album(folder=None, size=32)) == []
    content, _, folder = build(paths, tmp_path / "without")
    assert content["guesses"] == {}
    assert 'id="guesses"' not in (folder / "report.html").read_text()
    np.savez(paths["models"] / "scratch" / "samples.npz", **record(store).samples)
    content, _, folder = build(paths, tmp_path / "with")
    page = (folder / "report.html").read_text()
    assert list(content["guesses"]) == ["scratch"]
    assert 'id="guesses"' in page
    assert "cosine 1.00 at visible groups, 0.00 at the 50 % hidden ones" in page

import math

import numpy as np
import pytest
import torch

from pointloom.errors import DataError
from pointloom.teachers.descriptors import coarse, color_histogram, histograms_of_gradients
from pointloom.teachers.images import depth_image
from pointloom.teachers.offline_image import Descriptor

CPU = torch.device("cpu")


def picture(seed: int = 0, side: int = 32) -> np.ndarray:
    random = np.random.default_rng(seed)
    rough = torch.from_numpy(random.random((1, 1, 6, 6)))
    return torch.nn.functional.interpolate(rough, (side, side), mode="bicubic")[0, 0].numpy()


def slow_hog(image: np.ndarray, cell: int) -> np.ndarray:
    """Histograms of gradients from the definition, pixel by pixel."""
    side = len(image)
    sums = np.zeros((9, side // cell, side // cell))
    for y in range(side):
        for x in range(side):
            dy = image[y + 1, x] - image[y - 1, x] if 0 < y < side - 1 else 0.0
            dx = image[y, x + 1] - image[y, x - 1] if 0 < x < side - 1 else 0.0
            place = (math.degrees(math.atan2(dy, dx)) % 180) / 20
            low, share = int(place), place - int(place)
            sums[low % 9, y // cell, x // cell] += (1 - share) * math.hypot(dy, dx)
            sums[(low + 1) % 9, y // cell, x // cell] += share * math.hypot(dy, dx)
    blocks = np.zeros((4, 9, side // cell - 1, side // cell - 1))
    for y in range(side // cell - 1):
        for x in range(side // cell - 1):
            block = np.array([sums[:, y + i, x + j] for i in (0, 1) for j in (0, 1)])
            for limit in (0.2, np.inf):
                block = np.minimum(block / np.sqrt((block**2).sum() + 1e-10), limit)
            blocks[:, :, y, x] = block
    return blocks.reshape(-1)


def test_histograms_of_gradients_equal_the_definition() -> None:
    images = np.stack([picture(seed) for seed in range(3)])
    found = histograms_of_gradients(torch.from_numpy(images), cells=(4, 8, 16))
    for cell, value in zip((4, 8, 16), found, strict=True):
        for one, image in zip(value.numpy(), images, strict=True):
            np.testing.assert_allclose(one, slow_hog(image, cell), atol=1e-9)


def test_brightness_and_contrast_do_not_change_histograms_of_gradients() -> None:
    image = torch.from_numpy(picture())[None]
    before = histograms_of_gradients(image, cells=(8,))[0]
    after = histograms_of_gradients(0.5 * image + 3, cells=(8,))[0]
    torch.testing.assert_close(before, after, atol=1e-4, rtol=0)


def test_half_a_turn_moves_the_cells_and_keeps_their_orientations() -> None:
    image = torch.from_numpy(picture())[None]
    before, after = (histograms_of_gradients(x, cells=(16,))[0] for x in (image, torch.rot90(image, 2, dims=(1, 2))))
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after.reshape(2, 2, 9), before.reshape(2, 2, 9).flip(0, 1))


def test_a_plain_picture_has_no_gradients() -> None:
    assert histograms_of_gradients(torch.ones(1, 32, 32), cells=(8,))[0].abs().max() == 0


def test_colour_histogram_counts_the_weighted_pixels() -> None:
    image = torch.zeros(1, 3, 2, 2)
    image[0, 0, 0] = 1.0  # two red, two black pixels, one black not counted
    weight = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    found = color_histogram(image, weight, bins=2)[0]
    expected = torch.zeros(8)
    expected[4], expected[0] = 2 / 3, 1 / 3
    torch.testing.assert_close(found, expected)
    assert color_histogram(image, torch.zeros(1, 2, 2), bins=2).abs().sum() == 0


def test_coarse_picture_is_the_mean_of_its_areas() -> None:
    image = torch.from_numpy(picture())[None, None]
    np.testing.assert_allclose(coarse(image, side=4)[0], image.reshape(4, 8, 4, 8).mean(dim=(1, 3)).reshape(-1))


def depth_views(num: int, seed: int = 0) -> np.ndarray:
    """Boxes of random size at random depth on empty background."""
    random = np.random.default_rng(seed)
    views = np.zeros((num, 96, 96), dtype=np.float32)
    for view in views:
        top, left = random.integers(10, 40, 2)
        bottom, right = random.integers(50, 90, 2)
        relief = 2.2 + random.random() + np.outer(np.ones(96), np.linspace(0, random.random(), 96))
        view[top:bottom, left:right] = relief[top:bottom, left:right]
    return views


def test_the_distance_of_the_camera_does_not_change_the_shape_descriptor() -> None:
    views = depth_views(4)
    descriptor = Descriptor("shape", dim=8, whitening=0.5, device=CPU)
    farther = np.where(views > 0, views + 0.7, 0).astype(np.float32)
    np.testing.assert_allclose(descriptor.encode_image(views), descriptor.encode_image(farther), atol=2e-3)


def test_whitened_components_are_those_of_a_plain_decomposition() -> None:
    descriptor = Descriptor("shape", dim=6, whitening=1.0, device=CPU)
    raw = descriptor.encode_image(depth_views(60))
    descriptor.fit(np.array_split(raw, 7))
    value = descriptor.project(raw)
    covariance = np.cov(value.T, bias=True)
    np.testing.assert_allclose(covariance, np.eye(6), atol=2e-3)
    np.testing.assert_allclose(value.mean(axis=0), 0, atol=1e-3)
    plain = Descriptor("shape", dim=6, whitening=0.0, device=CPU)
    plain.fit([raw])
    variance = plain.project(raw).var(axis=0)
    assert (np.diff(variance) < 0).all()
    np.testing.assert_allclose(plain.project(raw) / np.sqrt(variance), value, atol=2e-2)


def test_descriptors_are_deterministic_whatever_the_batch() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    descriptor = Descriptor("look", dim=8, whitening=0.5, device=CPU)
    whole = descriptor.encode_image(rgb)
    np.testing.assert_allclose(whole[33:35], descriptor.encode_image(rgb[33:35]), atol=1e-6)
    np.testing.assert_array_equal(whole, descriptor.encode_image(rgb))


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(DataError, match="teacher look: no training object has a usable view"):
        Descriptor("look", dim=8, whitening=0.5, device=CPU).fit([])


def test_depth_pictures_are_white_in_front_and_black_behind() -> None:
    depth = np.array([[[0.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]], dtype=np.float32)
    found = depth_image(depth)
    assert found[..., 0].tolist() == [[[0, 255], [153, 51]], [[0, 0], [0, 0]]]
    assert (found == found[..., :1]).all()

import numpy as np
import pytest

from pointloom.data.materials import bytes_to_linear, linear_to_bytes, sample_texture, srgb_to_linear


def test_every_srgb_byte_survives_the_way_through_linear_light() -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(linear_to_bytes(bytes_to_linear(levels)), levels)


def test_transfer_function_matches_the_standard() -> None:
    # IEC 61966-2-1: 0.5 decodes to 0.2140, 0.04 is on the linear part
    np.testing.assert_allclose(srgb_to_linear(np.array([0.5, 0.04, 1.0])), [0.21404, 0.04 / 12.92, 1.0], atol=1e-5)
    assert linear_to_bytes(np.array([0.2158605, -1.0, 2.0], dtype=np.float32)).tolist() == [128, 0, 255]


@pytest.mark.parametrize(
    ("uv", "texel"),
    [((0.1, 0.9), 0), ((0.9, 0.9), 1), ((0.1, 0.1), 2), ((0.9, 0.1), 3), ((1.1, -0.1), 0), ((-0.1, 2.1), 3)],
)
def test_texture_lookup_starts_at_the_lower_left_and_repeats(uv: tuple[float, float], texel: int) -> None:
    texture = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, axis=2)
    color = linear_to_bytes(sample_texture(texture, np.array([uv])))
    assert color.tolist() == [[texel] * 3]

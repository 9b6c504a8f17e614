"""What happens to the points of a scene between the store and the network: voxels, crops and augmentation, seeded."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Ints = NDArray[np.int64]

SMALLEST_VOXEL = 0.005
"""Metres; the first edge that thinning tries."""


@dataclass(frozen=True)
class ScenePoints:
    """Points of one scene on their way to a network.

    Attributes:
        coord: (N, 3) metres.
        color: (N, 3) in [0, 1].
        normal: (N, 3) unit vectors, 0 where unknown.
        segment: (N,) class, -1 where unknown.
        instance: (N,) instance, -1 where there is none.
    """

    coord: Float
    color: Float
    normal: Float
    segment: Ints
    instance: Ints

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> "ScenePoints":
        """Return some of the points."""
        return ScenePoints(**{name: array[index] for name, array in vars(self).items()})


@dataclass(frozen=True)
class Augmentation:
    """How scenes are changed while training; ``p`` are probabilities per scene.

    Attributes:
        dropout: Part of the points that is left out.
        dropout_p: See ``dropout``.
        rotate_degrees: Largest turn about the up axis.
        rotate_p: See ``rotate_degrees``.
        tilt_degrees: Largest turn about x and about y, each with ``tilt_p``.
        tilt_p: See ``tilt_degrees``.
        scale: Range of the factor, the same for all axes.
        flip_p: Probability of a mirror image in x, and of one in y.
        jitter: Standard deviation of noise on coordinates, metres.
        jitter_clip: Largest such noise, metres.
        elastic: Pairs of granularity and magnitude, metres, one after the other.
        elastic_p: Probability of elastic distortion.
        contrast_p: Probability of blending with the colours stretched to their full range.
        color_shift: Largest shift per channel, [0, 1].
        color_shift_p: See ``color_shift``.
        color_noise: Standard deviation of noise per point and channel, [0, 1].
        color_noise_p: See ``color_noise``.
        hue: Largest turn of the hue, 1 = full circle.
        saturation: Largest relative change of the saturation.
    """

    dropout: float = 0.0
    dropout_p: float = 0.0
    rotate_degrees: float = 0.0
    rotate_p: float = 1.0
    tilt_degrees: float = 0.0
    tilt_p: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    flip_p: float = 0.0
    jitter: float = 0.0
    jitter_clip: float = 0.0
    elastic: tuple[tuple[float, float], ...] = ()
    elastic_p: float = 0.0
    contrast_p: float = 0.0
    color_shift: float = 0.0
    color_shift_p: float = 0.0
    color_noise: float = 0.0
    color_noise_p: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0


POINT_TRANSFORMER = Augmentation(
    scale=(0.9, 1.1), contrast_p=0.2, color_shift=0.05, color_shift_p=0.95, color_noise=0.005, color_noise_p=0.95,
    hue=0.5, saturation=0.2,
)  # fmt: skip
"""Point Transformer and MM-3DScene (official code)."""

INDOOR = Augmentation(
    dropout=0.2, dropout_p=0.2, rotate_degrees=180.0, rotate_p=0.5, tilt_degrees=180 / 64, tilt_p=0.5, scale=(0.9, 1.1),
    flip_p=0.5, jitter=0.005, jitter_clip=0.02, elastic=((0.2, 0.4), (0.8, 1.6)), elastic_p=0.95, contrast_p=0.2,
    color_shift=0.05, color_shift_p=0.95, color_noise=0.05, color_noise_p=0.95,
)  # fmt: skip
"""Point Transformer V3's indoor segmentation, which MSM uses (MSM paper, D.2)."""

AUGMENTATIONS = {"none": Augmentation(), "point_transformer": POINT_TRANSFORMER, "indoor": INDOOR}


def augment(points: ScenePoints, how: Augmentation, rng: np.random.Generator) -> ScenePoints:
    """Change one scene at random; its order of points stays, some may be missing."""
    if how.dropout > 0 and rng.random() < how.dropout_p:
        num = len(points.coord)
        points = points.take(np.sort(rng.permutation(num)[: max(num - int(num * how.dropout), 1)]))
    coord, normal = points.coord, points.normal
    turn = random_turn(how, rng)
    coord, normal = coord @ turn.T, normal @ turn.T
    coord = coord * np.float32(rng.uniform(*how.scale))
    mirror = np.where(np.append(rng.random(2) < how.flip_p, False), -1, 1).astype(np.float32)
    coord, normal = coord * mirror, normal * mirror
    if how.jitter > 0:
        coord = coord + jitter(coord.shape, how.jitter, how.jitter_clip, rng)
    if how.elastic and rng.random() < how.elastic_p:
        for granularity, magnitude in how.elastic:
            coord = elastic_distortion(coord, granularity, magnitude, rng)
    return replace(points, coord=coord, normal=normal, color=augment_color(points.color, how, rng))


def augment_color(color: Float, how: Augmentation, rng: np.random.Generator) -> Float:
    """Change the colours of one scene at random; they stay in [0, 1]."""
    if rng.random() < how.contrast_p:
        color = stretch_contrast(color, float(rng.random()))
    if how.color_shift > 0 and rng.random() < how.color_shift_p:
        color = np.clip(color + rng.uniform(-how.color_shift, how.color_shift, 3).astype(np.float32), 0, 1)
    if how.color_noise > 0 and rng.random() < how.color_noise_p:
        noise = rng.standard_normal(color.shape, dtype=np.float32) * np.float32(how.color_noise)
        color = np.clip(color + noise, 0, 1)
    if how.hue > 0 or how.saturation > 0:
        hue = float(rng.uniform(-how.hue, how.hue))
        color = shift_hue(color, hue, 1 + float(rng.uniform(-how.saturation, how.saturation)))
    return color


def random_turn(how: Augmentation, rng: np.random.Generator) -> Float:
    """Draw a rotation: about z, then x, then y."""
    turn = np.eye(3)
    limits = (
        (2, how.rotate_degrees, how.rotate_p),
        (0, how.tilt_degrees, how.tilt_p),
        (1, how.tilt_degrees, how.tilt_p),
    )
    for axis, degrees, p in limits:
        if degrees > 0 and rng.random() < p:
            turn = rotation(axis, np.deg2rad(rng.uniform(-degrees, degrees))) @ turn
    return turn.astype(np.float32)


def rotation(axis: int, angle: float) -> NDArray[np.float64]:
    """Return the 3 x 3 counter-clockwise turn about an axis, seen against it; columns are vectors."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    turn = np.eye(3)
    turn[a, a] = turn[b, b] = np.cos(angle)
    turn[b, a], turn[a, b] = np.sin(angle), -np.sin(angle)
    return turn


def jitter(shape: tuple[int, ...], sigma: float, clip: float, rng: np.random.Generator) -> Float:
    """Draw clipped normal noise."""
    noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(sigma)
    return np.clip(noise, -clip, clip)


def elastic_distortion(coord: Float, granularity: float, magnitude: float, rng: np.random.Generator) -> Float:
    """Move points by smooth noise: normal on a grid, blurred twice along every axis, linear in between."""
    from scipy.ndimage import map_coordinates, uniform_filter1d

    low = coord.min(axis=0)
    shape = (np.floor((coord.max(axis=0) - low) / granularity).astype(np.int64) + 3).tolist()
    noise = rng.standard_normal((3, *shape), dtype=np.float32)
    for axis in (1, 2, 3) * 2:
        noise = uniform_filter1d(noise, 3, axis=axis, mode="constant")
    where = ((coord - low) / granularity + 1).T
    moved = np.stack([map_coordinates(part, where, order=1, mode="nearest") for part in noise], axis=1)
    return (coord + moved * np.float32(magnitude)).astype(np.float32)


def stretch_contrast(color: Float, blend: float) -> Float:
    """Blend colours with those whose channels go from 0 to 1."""
    low, high = color.min(axis=0), color.max(axis=0)
    full = (color - low) / np.maximum(high - low, np.float32(1e-6))
    return ((1 - blend) * color + blend * full).astype(np.float32)


def shift_hue(color: Float, hue: float, saturation: float) -> Float:
    """Turn the hue by ``hue`` (1 = full circle) and multiply the saturation."""
    value = color.max(axis=1)
    chroma = value - color.min(axis=1)
    safe = np.maximum(chroma, np.float32(1e-12))
    r, g, b = color.T
    sector = np.where(value == r, (g - b) / safe % 6, np.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4))
    turned = (sector / 6 + hue) % 1 * 6
    new = np.clip(np.where(value > 0, chroma / np.maximum(value, 1e-12), 0) * saturation, 0, 1) * value
    step = (np.array([5, 3, 1]) + turned[:, None]) % 6
    return (value[:, None] - new[:, None] * np.clip(np.minimum(step, 4 - step), 0, 1)).astype(np.float32)


def voxel_keys(coord: Float, voxel_size: float) -> Ints:
    """Return (N,) a number per point, equal for points of one voxel.

    The grid is aligned to multiples of the size, as that of networks on voxels is (``ops.voxels.voxelize``): what has
    one point per voxel here has one there, also after a crop.
    """
    cell = np.floor(coord / np.float32(voxel_size)).astype(np.int64)
    cell -= cell.min(axis=0)
    size = cell.max(axis=0) + 1
    return (cell[:, 0] * size[1] + cell[:, 1]) * size[2] + cell[:, 2]


def _sorted_voxels(coord: Float, voxel_size: float) -> tuple[Ints, Ints, Ints]:
    """Return the points ordered by voxel, where each voxel begins in that order, and how many points it has."""
    keys = voxel_keys(coord, voxel_size)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begin = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return order, begin, np.diff(np.append(begin, len(order)))


def grid_sample(
    coord: Float, voxel_size: float, rng: np.random.Generator | None, *, preferred: NDArray[np.bool_] | None = None
) -> tuple[Ints, Ints]:
    """Choose one point per voxel.

    Args:
        coord: (N, 3) metres.
        voxel_size: Edge in metres.
        rng: Draws the points; None takes the first one of every voxel.
        preferred: Points that go before all others of their voxel, such as the few with a label.

    Returns:
        (V,) the chosen points, and (N,) the place among them of every point's voxel.
    """
    if preferred is None:
        order, begin, count = _sorted_voxels(coord, voxel_size)
        chosen = order[begin + (0 if rng is None else (rng.random(len(begin)) * count).astype(np.int64))]
    else:
        rank = np.zeros(len(coord)) if rng is None else rng.random(len(coord))
        first = np.argsort(rank - preferred, kind="stable")
        order, begin, count = _sorted_voxels(coord[first], voxel_size)
        order = first[order]
        chosen = order[begin]
    inverse = np.empty(len(coord), dtype=np.int64)
    inverse[order] = np.repeat(np.arange(len(begin)), count)
    return chosen, inverse


def fragments(coord: Float, voxel_size: float) -> list[Ints]:
    """Divide a scene so that every point is in at least one part and every part has one point of every voxel.

    Returns:
        As many parts as the fullest voxel has points; those of emptier voxels come repeatedly.
    """
    order, begin, count = _sorted_voxels(coord, voxel_size)
    return [order[begin + i % count] for i in range(int(count.max()))]


def sphere_crop(coord: Float, num_points: int, center: Float) -> Ints:
    """Return the ``num_points`` points nearest to ``center``, in their order; all where there are no more."""
    if len(coord) <= num_points:
        return np.arange(len(coord))
    distance = np.square(coord - center).sum(axis=1)
    return np.sort(np.argpartition(distance, num_points)[:num_points])


def random_block(coord: Float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw an upright block about a random point and say which points are in it.

    Its sides are a third to all of the scene's extent in x and y.
    """
    extent = np.ptp(coord[:, :2], axis=0)
    half = extent * rng.uniform(1 / 3, 1, 2) / 2
    center = coord[rng.integers(len(coord)), :2]
    return (np.abs(coord[:, :2] - center) <= half).all(axis=1)


def thin(coord: Float, max_points: int, *, preferred: NDArray[np.bool_] | None = None) -> Ints:
    """Keep the first point of every voxel, again and again with larger voxels, until at most ``max_points`` remain.

    Args:
        coord: (N, 3) metres.
        max_points: Largest number of points.
        preferred: Points that go before all others of their voxel.

    Returns:
        The points in their order; all where there are no more.
    """
    kept, voxel_size = np.arange(len(coord)), SMALLEST_VOXEL
    inside = coord - coord.min(axis=0, initial=np.inf)  # so that one voxel can hold the whole scene
    while len(kept) > max_points:
        wanted = None if preferred is None else preferred[kept]
        kept = kept[np.sort(grid_sample(inside[kept], voxel_size, None, preferred=wanted)[0])]
        voxel_size *= 2**0.5
    return kept

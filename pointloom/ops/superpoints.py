"""Over-segmentation of a scene into small, even surfaces."""

import numpy as np
import torch
from jaxtyping import Float, Int

from pointloom.kernels.union import merge_edges
from pointloom.ops.neighbors import knn_ragged


def superpoints(
    coord: Float[np.ndarray, "n 3"],
    normal: Float[np.ndarray, "n 3"],
    color: Float[np.ndarray, "n 3"] | None = None,
    *,
    scale: float = 0.05,
    smallest: int = 20,
    k: int = 8,
) -> Int[np.ndarray, " n"]:
    """Cut one scene into super-points: the graph segmentation of Felzenszwalb and Huttenlocher (2004, section 3).

    Edges join every point with its nearest ones; an edge weighs 1 - |cosine| between the normals plus, with colours,
    half the distance of the colours.

    Args:
        coord: Metres.
        normal: Unit normals; the sign does not matter.
        color: Colours in [0, 1].
        scale: Larger values make larger super-points (the paper's k).
        smallest: Super-points with fewer points are joined to a neighbour.
        k: Neighbours per point.

    Returns:
        Number of the super-point of every point, 0 to their count - 1.

    Note:
        ScanNet's own over-segmentation runs the same algorithm on the edges of the mesh; a scan without a mesh has
        only neighbours.

    Raises:
        ValueError: A coordinate is not finite, or there are no points.
    """
    points = torch.from_numpy(np.ascontiguousarray(coord, dtype=np.float32))
    end = torch.tensor([len(points)])
    near = knn_ragged(points, end, points, end, min(k + 1, len(points)))[:, 1:].numpy()
    start = np.repeat(np.arange(len(points)), near.shape[1])
    end_node = near.ravel()
    weight = 1 - np.abs(np.einsum("ec,ec->e", normal[start], normal[end_node]))
    if color is not None:
        weight = weight + 0.5 * np.linalg.norm(color[start] - color[end_node], axis=1)
    order = np.argsort(weight, kind="stable")
    root = merge_edges(
        start[order], end_node[order], weight[order].astype(np.float32), len(points), scale, smallest
    )  # fmt: skip
    found: Int[np.ndarray, " n"] = np.unique(root, return_inverse=True)[1]
    return found

"""Point operations: pure tensor functions without parameters or files, one public function per operation."""

from pointloom.kernels import fps_order
from pointloom.ops.backend import choose_backend
from pointloom.ops.boxes import (
    axis_aligned,
    box_corners,
    box_iou,
    box_nms,
    count_points_in_boxes,
    generalized_box_iou,
    points_in_boxes,
)
from pointloom.ops.chamfer import chamfer_distance, chamfer_distance_ragged
from pointloom.ops.contrastive import contrastive_loss
from pointloom.ops.earth_movers import earth_movers_distance
from pointloom.ops.gather import gather_rows, gather_values, own_rows, share_of_mean
from pointloom.ops.grouping import gather_points, group_points
from pointloom.ops.interpolation import interpolate_features, nearest_weights, weighted_rows
from pointloom.ops.linear_max import linear_max
from pointloom.ops.linear_norm_relu import linear_norm_relu
from pointloom.ops.neighbor_sums import neighbor_rows, neighbor_sums
from pointloom.ops.neighbors import ball_query, ball_query_ragged, knn, knn_ragged
from pointloom.ops.norm_linear_max import norm_linear_max
from pointloom.ops.norm_relu import norm_relu
from pointloom.ops.pooling import max_over_points
from pointloom.ops.sampling import farthest_point_sampling, farthest_point_sampling_ragged
from pointloom.ops.superpoints import superpoints

__all__ = [
    "axis_aligned",
    "ball_query",
    "ball_query_ragged",
    "box_corners",
    "box_iou",
    "box_nms",
    "chamfer_distance",
    "chamfer_distance_ragged",
    "choose_backend",
    "contrastive_loss",
    "count_points_in_boxes",
    "earth_movers_distance",
    "farthest_point_sampling",
    "farthest_point_sampling_ragged",
    "fps_order",
    "gather_points",
    "gather_rows",
    "gather_values",
    "generalized_box_iou",
    "group_points",
    "interpolate_features",
    "knn",
    "knn_ragged",
    "linear_max",
    "linear_norm_relu",
    "max_over_points",
    "nearest_weights",
    "neighbor_rows",
    "neighbor_sums",
    "norm_linear_max",
    "norm_relu",
    "own_rows",
    "points_in_boxes",
    "share_of_mean",
    "superpoints",
    "weighted_rows",
]

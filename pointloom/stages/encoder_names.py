"""Names of encoders for parameters, so that a misspelt one is found before anything starts and without torch.

A test compares them with ``models.ENCODERS`` and ``models.SCENE_ENCODERS``.
"""

from typing import Literal

ObjectEncoderName = Literal["point_m2ae_base", "point_m2ae_tiny", "point_mae_small", "point_mae_tiny", "pointnet"]

SceneEncoderName = Literal[
    "detr",
    "detr_masked",
    "hunet_ablation",
    "hunet_large",
    "hunet_tiny",
    "point_transformer",
    "point_transformer_tiny",
    "pointnet2_tiny",
    "pointnet2_votenet",
    "sr_unet",
    "sr_unet_tiny",
    "stratified_transformer",
    "stratified_transformer_scannet",
    "stratified_transformer_tiny",
]

EncoderName = Literal[ObjectEncoderName, SceneEncoderName]

"""Tiny models of the real classes, written in the formats that people download."""

import json
from pathlib import Path
from typing import Any

import torch

from pointloom._compat import ensure_torchvision

VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]


def clip_config(**more: Any) -> dict[str, Any]:
    return {"embed_dim": 32, "vision_cfg": dict(VISION), "text_cfg": dict(TEXT), **more}


def clip_model(seed: int = 0, **more: Any) -> torch.nn.Module:
    ensure_torchvision()
    import open_clip

    torch.manual_seed(seed)
    return open_clip.model.CLIP(**clip_config(**more)).eval()


def write_clip_folder(folder: Path, *, seed: int = 0, **more: Any) -> torch.nn.Module:
    """Write a folder in open_clip's format and return the model in it."""
    from safetensors.torch import save_file

    model = clip_model(seed, **more)
    folder.mkdir(parents=True)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": clip_config(**more), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return model


def write_dino_folder(folder: Path, *, seed: int = 0, registers: bool = False) -> torch.nn.Module:
    """Write a folder as transformers saves DINOv2 and return the model in it."""
    ensure_torchvision()
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    torch.manual_seed(seed)
    size = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 14, "image_size": 70}
    model: torch.nn.Module
    if registers:
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**size))
    else:
        model = Dinov2Model(Dinov2Config(**size))
    model.eval().save_pretrained(folder)
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "size": {"shortest_edge": 256},
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model

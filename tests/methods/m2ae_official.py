"""Official Point-M2AE weights for our modules: names, and the formula that the reference files' weights follow."""

import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

OFFICIAL_NAMES = {
    "encoder.token_embeds": "h_encoder.token_embed",
    "encoder.position_embeds": "h_encoder.encoder_pos_embeds",
    "encoder.transformers": "h_encoder.encoder_blocks",
    "encoder.norms": "h_encoder.encoder_norms",
    "decoder.mask_token": "mask_token",
    "decoder.position_embeds": "decoder_pos_embeds",
    "decoder.transformers": "h_decoder",
    "decoder.token_propagations": "token_prop",
    "decoder.norm": "decoder_norm",
    "predict": "rec_head",
}
LAYERS = {
    ".first.": ".first_conv.0.",
    ".norm1.": ".first_conv.1.",
    ".second.": ".first_conv.3.",
    ".third.": ".second_conv.0.",
    ".norm2.": ".second_conv.1.",
    ".fourth.": ".second_conv.3.",
}
PROPAGATION_LAYERS = {
    ".fuse.": ".fuse.net.0.",
    ".norm.": ".fuse.net.1.",
    ".first.": ".extraction.operation.0.net1.0.",
    ".norm1.": ".extraction.operation.0.net1.1.",
    ".second.": ".extraction.operation.0.net2.0.",
    ".norm2.": ".extraction.operation.0.net2.1.",
}


def official_name(name: str) -> str:
    ours = max((prefix for prefix in OFFICIAL_NAMES if name.startswith(prefix)), key=len)
    found = OFFICIAL_NAMES[ours] + name[len(ours) :]
    layers = {"h_encoder.token_embed": LAYERS, "token_prop": PROPAGATION_LAYERS}.get(OFFICIAL_NAMES[ours], {})
    for layer, official in layers.items():
        if layer in found:
            return found.replace(layer, official)
    return found


def formula(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the weight that the reference files have under an official name."""
    z = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    last = key.rpartition(".")[2]
    if last == "running_mean":
        return 0.05 * z
    if last == "running_var":
        return 1 + 0.1 * np.abs(z)
    if "token" in last or "cls_pos" in last:
        return 0.02 * z
    if len(shape) == 1 and last in {"weight", "scale"}:
        return 1 + 0.1 * z
    if len(shape) == 1:
        return 0.05 * z
    return np.asarray(z / np.sqrt(np.prod(shape[1:])), dtype=np.float32)


def load_formula(module: nn.Module, names: dict[str, str] | None = None) -> None:
    """Give a module the reference files' weights; ``names`` maps prefixes that ``official_name`` does not know."""
    state = {}
    for name, value in module.state_dict().items():
        known = [prefix for prefix in names or {} if name.startswith(prefix)]
        key = (names or {})[known[0]] + name[len(known[0]) :] if known else official_name(name)
        if value.dtype == torch.int64:
            state[name] = value
            continue
        kernel = value.unsqueeze(-1) if is_convolution(key) and value.ndim == 2 else value
        state[name] = torch.from_numpy(formula(key, tuple(kernel.shape))).reshape(value.shape)
    module.load_state_dict(state)


def is_convolution(key: str) -> bool:
    return "token_embed" in key or "token_prop" in key or "rec_head" in key

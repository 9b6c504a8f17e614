"""What the published repositories call the weights of our encoders, and in which form they keep them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_EMBEDDER = {
    "first": "first_conv.0",
    "norm1": "first_conv.1",
    "second": "first_conv.3",
    "third": "second_conv.0",
    "norm2": "second_conv.1",
    "fourth": "second_conv.3",
}
_PLAIN = {
    "cls_token": "cls_token",
    "cls_position": "cls_pos",
    **{f"patch_embed.{ours}": f"encoder.{theirs}" for ours, theirs in _EMBEDDER.items()},
    "position_embed": "pos_embed",
    "transformer.blocks": "blocks.blocks",
    "norm": "norm",
}
_HIERARCHICAL = {
    **{
        f"token_embeds.{scale}.{ours}": f"token_embed.{scale}.{theirs}"
        for scale in range(3)
        for ours, theirs in _EMBEDDER.items()
    },
    "position_embeds": "encoder_pos_embeds",
    "transformers": "encoder_blocks",
    "norms": "encoder_norms",
}
_CONVOLUTION_BLOCK = {
    "norm": "norm.norm",
    "first": "conv1",
    "second": "conv2",
    "last_norm": "norm_post_layer.norm",
    "branch.gain": "skip_path.gamma",
}
_ATTENTION_BLOCK = {
    "norm": "norm.norm",
    "qkv": "linear_in",
    "proj": "linear_out",
    "branch.gain": "skip_path_1.gamma",
    "mlp_norm": "mlp_norm.norm",
    "widen": "mlp_lin_1",
    "narrow": "mlp_lin_2",
    "mlp_branch.gain": "skip_path_2.gamma",
}
_UP = {
    "norm": "up.{i}.0.norm",
    "convolution": "up.{i}.1",
    "skip_norm": "linears_skip.{i}.0.norm",
    "skip": "linears_skip.{i}.1",
    "branch.gain": "skip.{i}.gamma",
}


def _hybrid_unet(depth: int) -> dict[str, str]:
    """Return the names of HUNet; their decoder counts from the coarsest resolution, ours from the finest."""
    names = {"stem.0": "init_transform.0", "stem.1": "init_transform.1.norm", "decoder_norm": "decoder_init_norm.norm"}
    for i in range(depth):
        for ours, theirs, at in (("encoder", "enc", i), ("decoder", "dec", depth - 1 - i)):
            for block in range(2):
                start, official = f"{ours}.{i}.convolutions.{block}", f"resnet_{theirs}.{at}.{block}"
                names |= {f"{start}.{own}": f"{official}.{other}" for own, other in _CONVOLUTION_BLOCK.items()}
                start, official = f"{ours}.{i}.attentions.{block}", f"att_{theirs}.{at}.{block + 1}"
                names |= {f"{start}.{own}": f"{official}.{other}" for own, other in _ATTENTION_BLOCK.items()}
    for i in range(depth - 1):
        names |= {f"down.{i}.convolution": f"down.{i}.0", f"down.{i}.norm": f"down.{i}.1.norm"}
        names |= {f"up.{i}.{own}": other.format(i=depth - 2 - i) for own, other in _UP.items()}
    return names


_HEADS = ("cls_head_finetune.", "label_conv.", "propagation", "convs", "bns")
_GAIN = "gamma"  # one row of gains there, a vector here
_CONVOLUTION = "_conv."  # their point-wise layers are convolutions of width 1, ours are linear


@dataclass(frozen=True)
class Layout:
    """How one repository stores an encoder.

    Attributes:
        method: Pre-training method of the repository.
        prefix: In front of the encoder's names in pre-training checkpoints; fine-tuned plain encoders have none.
        names: Beginning of our names -> beginning of theirs, without ``prefix``.
        aliases: Their names, with prefix, that mean others in fine-tuned models.
        extras: Beginnings of the names of decoders, which pre-training checkpoints hold beside the encoder.
        heads: The same for fine-tuned models.
        may_lack: Beginnings of our names that fine-tuned models may lack.
        builders: Our encoders of this kind, the published size first.
        args: Arguments of the builder that the published weights were trained with.
        finetuned_args: Further ones of fine-tuned models.
        num_points: Points per cloud in pre-training.
        container: Key under which checkpoints hold the weights.
        wrapper: In front of all names, also of ``prefix``, in published checkpoints.
        up: Axis that points up in the repository's clouds.
        turnable: Whether weights can be turned from clouds with another axis up.
    """

    method: str
    prefix: str
    names: Mapping[str, str]
    aliases: Mapping[str, str]
    extras: tuple[str, ...]
    heads: tuple[str, ...]
    may_lack: tuple[str, ...]
    builders: tuple[str, ...]
    args: Mapping[str, float | str]
    finetuned_args: Mapping[str, bool]
    num_points: int
    container: str = "base_model"
    wrapper: str = ""
    up: str = "y"
    turnable: bool = True

    def official_name(self, name: str) -> str:
        """Return their name, without prefix, for one of our encoder's.

        Raises:
            KeyError: The repository has no such weight.
        """
        known = [ours for ours in self.names if name == ours or name.startswith(ours + ".")]
        if not known:
            raise KeyError(name)
        ours = max(known, key=len)
        return self.names[ours] + name[len(ours) :]

    def own_names(self, names: Iterable[str]) -> dict[str, str]:
        """Return their name, without prefix -> our name."""
        return {self.official_name(name): name for name in names}


LAYOUTS = {
    "point-mae": Layout(
        method="mae",
        prefix="MAE_encoder.",
        names=_PLAIN,
        aliases={},
        extras=("mask_token", "decoder_pos_embed.", "MAE_decoder.", "increase_dim."),
        heads=_HEADS,
        may_lack=(),
        builders=("point_mae_small", "point_mae_tiny"),
        args={"skip_near_origin": 0.001},
        finetuned_args={},
        num_points=1024,
    ),
    "point-pqae": Layout(
        method="pqae",
        prefix="PQAE_encoder.",
        names=_PLAIN,
        aliases={},
        extras=("decoder_pos_embed.", "PQ_decoder.", "PQattn_contrast.", "PQ_linear."),
        heads=_HEADS,
        may_lack=(),
        builders=("point_mae_small", "point_mae_tiny"),
        args={"skip_near_origin": 0.001},
        finetuned_args={},
        num_points=1024,
    ),
    "point-m2ae": Layout(
        method="m2ae",
        prefix="h_encoder.",
        names=_HIERARCHICAL,
        aliases={"norm.weight": "h_encoder.encoder_norms.2.weight", "norm.bias": "h_encoder.encoder_norms.2.bias"},
        extras=("mask_token", "decoder_pos_embeds.", "h_decoder.", "token_prop.", "decoder_norm.", "rec_head."),
        heads=_HEADS,
        may_lack=("norms.0.", "norms.1."),
        builders=("point_m2ae_base", "point_m2ae_tiny"),
        args={"skip_near_origin": 0.001},
        finetuned_args={"local_attention": True},
        num_points=2048,
    ),
    "msm": Layout(
        method="msm",
        prefix="student.",
        names=_hybrid_unet(5),
        aliases={},
        extras=("",),  # as the released code does: what has not the prefix is no part of the encoder
        heads=(),
        may_lack=(),
        builders=("hunet_large",),
        args={"sampling": "legacy"},
        finetuned_args={},
        num_points=204_800,  # our reading of "we only increase the number of points per crop" (appendix D.2)
        container="state_dict",
        wrapper="module.",
        up="z",
        turnable=False,
    ),
}
"""Name for the command line -> layout."""


def from_official(weight: Tensor, official_name: str, *, up: str) -> Tensor:
    """Return one of their weights in our form, for clouds with +Z up.

    Args:
        weight: As they store it.
        official_name: Their name, without prefix.
        up: Axis of their clouds that points up; layers that read coordinates are turned from there, without rounding.
    """
    if _CONVOLUTION in official_name and weight.ndim == 3:
        weight = weight.squeeze(-1)
    if official_name.endswith(_GAIN):
        weight = weight.squeeze(0)
    if up == "y" and _reads_coordinates(weight):
        x, y, z = weight.unbind(-1)
        weight = torch.stack([x, -z, y], dim=-1)
    return weight.contiguous()


def to_official(weight: Tensor, official_name: str, *, up: str) -> Tensor:
    """Undo ``from_official``, bit by bit."""
    if up == "y" and _reads_coordinates(weight):
        x, y, z = weight.unbind(-1)
        weight = torch.stack([x, z, -y], dim=-1)
    if _CONVOLUTION in official_name and weight.ndim == 2:
        weight = weight.unsqueeze(-1)
    if official_name.endswith(_GAIN):
        weight = weight.unsqueeze(0)
    return weight.contiguous()


def _reads_coordinates(weight: Tensor) -> bool:
    return weight.ndim == 2 and weight.shape[1] == 3

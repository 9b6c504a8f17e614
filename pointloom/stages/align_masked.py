"""Masked modelling before or beside the alignment: rows of the two-stage paper's table 9."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pointloom.stages.params import StageParams

if TYPE_CHECKING:
    from torch import nn

    from pointloom.methods.align import Align
    from pointloom.methods.distill import Distill
    from pointloom.methods.joint import Joint


class MaskedParams(StageParams):
    """What both orders have; the fields are those of ``DistillParams``."""

    mask: Literal["random", "block"] = Field(description="how hidden patches are chosen")
    mask_ratio: float = Field(gt=0, lt=1, description="share of hidden patches")
    decoder_depth: int = Field(ge=1, description="blocks of the local decoder")
    decoder_heads: int = Field(ge=1, description="attention heads of the decoders")


class MaskedFirstParams(MaskedParams):
    """Masked autoencoding, then alignment of the same encoder."""

    order: Literal["first"]
    epochs: int = Field(ge=1, description="length of the first part")


class MaskedTogetherParams(MaskedParams):
    """Masked distillation in the same steps, from a moving average of the encoder."""

    order: Literal["together"]
    local_weight: float = Field(gt=0, description="factor of the local term")
    shuffle: bool = Field(description="deal token contents out anew in front of the local decoder, not positions")
    global_depth: int = Field(
        ge=0, description="blocks of the global decoder; 0 = the encoder's pooling and two linear layers"
    )
    momentum: float = Field(ge=0, lt=1, description="share of the old moving average that stays at every step")


def masked_first(params: MaskedFirstParams, align: "Align") -> "Distill":
    """Build masked autoencoding of the encoder that is aligned afterwards: stage 2 with points as its only target.

    There is no aligned teacher yet, so tokens cannot be the target (the paper does not say what is).

    Raises:
        ParamsError: The encoder has no masked form, or the parameters do not fit it.
    """
    return _distill(params, align, local_target="points", local_weight=1.0, shuffle=False, global_depth=None)


def masked_together(params: MaskedTogetherParams, align: "Align") -> "Joint":
    """Build alignment and masked distillation in one.

    Raises:
        ParamsError: The encoder has no masked form, or the parameters do not fit it.
    """
    from pointloom.methods.joint import Joint
    from pointloom.models.ema import EmaTeacher
    from pointloom.structures import as_module

    follower = EmaTeacher(as_module(align.encoder), buffers="copy", always_evaluate=True)
    distill = _distill(
        params, align, local_target="tokens", local_weight=params.local_weight, shuffle=params.shuffle,
        global_depth=params.global_depth, teacher=follower.network,
    )  # fmt: skip
    return Joint(align, distill, follower=follower, momentum=params.momentum)


def _distill(
    params: MaskedParams,
    align: "Align",
    *,
    local_target: str,
    local_weight: float,
    shuffle: bool,
    global_depth: int | None,
    teacher: "nn.Module | None" = None,
) -> "Distill":
    from copy import deepcopy

    from pointloom.errors import ParamsError
    from pointloom.methods.distill import Distill
    from pointloom.models import MaskedEncoder

    teacher = deepcopy(align.encoder) if teacher is None else teacher  # type: ignore[assignment]
    if not isinstance(align.encoder, MaskedEncoder) or not isinstance(teacher, MaskedEncoder):
        raise ParamsError("masked: only point_mae and point_m2ae encoders can leave patches out")
    try:
        return Distill(
            align.encoder,
            teacher,
            mask_ratio=params.mask_ratio,
            mask=params.mask,
            local_target=local_target,
            local_weight=local_weight,
            global_term=global_depth is not None,
            shuffle=shuffle,
            decoder_depth=params.decoder_depth,
            global_depth=global_depth or 0,
            decoder_heads=params.decoder_heads,
        )
    except ValueError as error:
        raise ParamsError(f"masked: {error}") from error

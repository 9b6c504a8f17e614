"""Detectors of task ``detection``, built around the weights of a pre-trained scene encoder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pointloom.stages.params import EncoderArgs

if TYPE_CHECKING:
    import torch

    from pointloom.models.seeds import SeedEncoder
    from pointloom.structures import Detector

NUM_TOWERS = 4
"""Encoders of H3DNet, all with the pre-trained weights."""


def build_detector(
    name: str,
    encoder: Path,
    encoder_args: EncoderArgs,
    detector_args: EncoderArgs,
    *,
    object_scale: float | None,
    mean_sizes: "torch.Tensor",
    num_headings: int,
    freeze_encoder: bool,
) -> "Detector":
    """Build a detector; all but the encoder is drawn from the current seed.

    Args:
        name: ``votenet``, ``h3dnet``, ``3detr`` or ``3detr_m``.
        encoder: Folder of the encoder.
        encoder_args: Builder arguments of the encoder to change.
        detector_args: Arguments of the detector to change.
        object_scale: Metres that an encoder of objects takes for an object's radius; None for one of scenes.
        mean_sizes: (K, 3) mean lengths of the boxes of every class, metres.
        num_headings: Parts of the circle, 1 for axis-aligned boxes.
        freeze_encoder: Leave the encoder's weights alone; its batch statistics still drift.

    Raises:
        ParamsError: The parts do not fit, or an argument is unknown.
    """
    from pointloom.errors import ParamsError

    number = NUM_TOWERS if name == "h3dnet" else 1
    towers = [tuned_seed_encoder(encoder, encoder_args, object_scale) for _ in range(number)]
    for tower in towers:
        tower.requires_grad_(not freeze_encoder)
    _check_attention(name, towers[0])
    try:
        return _build(name, towers, mean_sizes=mean_sizes, num_headings=num_headings, args=detector_args)
    except (TypeError, ValueError) as error:
        raise ParamsError(f"finetune: detector {name!r} cannot be built with {detector_args}: {error}") from error


def tuned_seed_encoder(folder: Path, encoder_args: EncoderArgs, object_scale: float | None) -> "SeedEncoder":
    """Load the pre-trained weights, or draw fresh ones from the current seed where the encoder has none.

    Raises:
        ParamsError: The encoder has no seeds that a detector could start from, or ``object_scale`` does not fit it.
    """
    from pointloom.errors import ParamsError
    from pointloom.models import ENCODERS, build_scene_encoder
    from pointloom.models.object_seeds import ObjectSeeds
    from pointloom.models.seeds import SeedEncoder
    from pointloom.stages.finetune_tasks.base import tuned_encoder
    from pointloom.train.checkpoint import load_scene_encoder_module, read_card

    card = read_card(folder)
    if (card.builder in ENCODERS) != (object_scale is not None):
        raise ParamsError(
            f"finetune: object_scale is {object_scale} and the encoder is {card.builder!r}; give the metres that stand "
            "for an object's radius with an encoder of objects, and null with one of scenes"
        )
    if object_scale is not None:
        return ObjectSeeds(tuned_encoder(folder, encoder_args), scale=object_scale)
    if card.method == "untrained":
        encoder = build_scene_encoder(card.builder, **(card.builder_args | encoder_args))
    else:
        encoder = load_scene_encoder_module(folder, **encoder_args)[0]
    if not isinstance(encoder, SeedEncoder):
        raise ParamsError(
            f"finetune: detection cannot start from encoder {card.builder!r}; it needs one of the PointNet++ or 3DETR "
            "family: pointnet2_votenet, pointnet2_tiny, detr, detr_masked"
        )
    return encoder


def _check_attention(name: str, encoder: "SeedEncoder") -> None:
    from pointloom.errors import ParamsError
    from pointloom.models.detr_encoder import DetrEncoder

    if isinstance(encoder, DetrEncoder) and (encoder.mask_radii is None) == (name == "3detr_m"):
        raise ParamsError("finetune: detector '3detr_m' goes with encoder 'detr_masked', all others with 'detr'")


def _build(
    name: str, towers: "list[SeedEncoder]", *, mean_sizes: "torch.Tensor", num_headings: int, args: dict[str, Any]
) -> "Detector":
    from pointloom.models.detr3d import Detr3d
    from pointloom.models.detr_loss import AXIS_ALIGNED, ORIENTED
    from pointloom.models.h3dnet import H3dNet
    from pointloom.models.votenet import VoteNet

    if name == "h3dnet":
        return H3dNet(towers, mean_sizes=mean_sizes, num_headings=num_headings, **args)
    if name == "votenet":
        return VoteNet(towers[0], mean_sizes=mean_sizes, num_headings=num_headings, **args)
    return Detr3d(
        towers[0],
        num_classes=len(mean_sizes),
        num_headings=num_headings,
        weights=AXIS_ALIGNED if num_headings == 1 else ORIENTED,
        projection=2 if name == "3detr_m" else 3,
        **args,
    )

"""Detectors of task ``detection``, built around the weights of a pre-trained scene encoder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pointloom.stages.params import EncoderArgs
from pointloom.stages.scene_training import tuned_scene_encoder

if TYPE_CHECKING:
    import torch

    from pointloom.models.seeds import SeedEncoder
    from pointloom.structures import Detector, SceneEncoder

NUM_TOWERS = 4
"""Encoders of H3DNet, all with the pre-trained weights."""

DETR_TOKENS = 2048
"""Of 3DETR's encoder; an encoder of whole scenes is read at as many places."""


def build_detector(
    name: str,
    encoder: Path,
    encoder_args: EncoderArgs,
    detector_args: EncoderArgs,
    *,
    object_scale: float | None,
    num_seeds: int | None,
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
        num_seeds: Places at which an encoder of voxels or packed points is read; None for all others.
        mean_sizes: (K, 3) mean lengths of the boxes of every class, metres.
        num_headings: Parts of the circle, 1 for axis-aligned boxes.
        freeze_encoder: Leave the encoder's weights alone; batch statistics still drift where the encoder makes seeds
            itself, those of an encoder that is read at seeds do not.

    Raises:
        ParamsError: The parts do not fit, or an argument is unknown.
    """
    from pointloom.errors import ParamsError

    number = NUM_TOWERS if name == "h3dnet" else 1
    encoders = [tuned_encoder_of_seeds(encoder, encoder_args, object_scale) for _ in range(number)]
    towers = [_tower(each, num_seeds, frozen=freeze_encoder) for each in encoders]
    _check_attention(name, towers[0])
    try:
        return _build(name, towers, mean_sizes=mean_sizes, num_headings=num_headings, args=detector_args)
    except (TypeError, ValueError) as error:
        raise ParamsError(f"finetune: detector {name!r} cannot be built with {detector_args}: {error}") from error


def tuned_encoder_of_seeds(folder: Path, encoder_args: EncoderArgs, object_scale: float | None) -> "SceneEncoder":
    """Load the pre-trained weights, or draw fresh ones from the current seed where the encoder has none.

    Raises:
        ParamsError: ``object_scale`` does not fit the encoder.
    """
    from pointloom.errors import ParamsError
    from pointloom.models import ENCODERS
    from pointloom.models.object_seeds import ObjectSeeds
    from pointloom.stages.finetune_tasks.base import tuned_encoder
    from pointloom.train.checkpoint import read_card

    card = read_card(folder)
    if (card.builder in ENCODERS) != (object_scale is not None):
        raise ParamsError(
            f"finetune: object_scale is {object_scale} and the encoder is {card.builder!r}; give the metres that stand "
            "for an object's radius with an encoder of objects, and null with one of scenes"
        )
    if object_scale is not None:
        return ObjectSeeds(tuned_encoder(folder, encoder_args), scale=object_scale)
    return tuned_scene_encoder(folder, encoder_args)


def _tower(encoder: "SceneEncoder", num_seeds: int | None, *, frozen: bool) -> "SeedEncoder":
    """Return an encoder that makes seeds itself as it is, any other one read at ``num_seeds`` places.

    Raises:
        ParamsError: ``num_seeds`` is given for one that makes seeds itself.
    """
    from pointloom.errors import ParamsError
    from pointloom.models.scene_seeds import SceneSeeds
    from pointloom.models.seeds import SeedEncoder

    if not isinstance(encoder, SeedEncoder):
        return SceneSeeds(encoder, num_seeds=num_seeds or DETR_TOKENS, frozen=frozen)
    if num_seeds is not None:
        raise ParamsError(
            f"finetune: num_seeds is {num_seeds}, but this encoder makes seeds itself; it is for encoders of whole "
            "scenes (hunet, sr_unet, point_transformer), give null"
        )
    return encoder.requires_grad_(not frozen)


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

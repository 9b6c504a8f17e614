"""Stage 1 of the two-stage paper: align clouds with captions and views (section 3.1), and the file of its heads."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.errors import CheckpointError
from pointloom.models import PointM2AEEncoder
from pointloom.ops import contrastive_loss, gather_values
from pointloom.structures import AlignBatch, Encoder, Losses

FORMAT = 1
WEIGHTS = "heads.safetensors"
CARD = "heads.json"
START_TEMPERATURE = 0.07
LARGEST_LOG_SCALE = math.log(100)


@dataclass(frozen=True)
class HeadsCard:
    """What the projections beside an aligned encoder lead to.

    Attributes:
        global_dim: Width of the encoder's feature.
        text_teacher: Name of the text teacher.
        text_dim: Width of its vectors.
        image_dims: Image teacher -> width of its vectors.
        scales: Teacher -> inverse temperature at the end; the text teacher's has the key ``text``.
        encoder_sha256: Weights of the encoder they belong to.
        features_digest: Cached teacher features they were trained with.
        with_text: Image teachers that share the projection of the text teacher.
        format: Version of this file format.
    """

    global_dim: int
    text_teacher: str
    text_dim: int
    image_dims: dict[str, int]
    scales: dict[str, float]
    encoder_sha256: str
    features_digest: str
    with_text: list[str] = field(default_factory=list)
    format: int = FORMAT


class Heads(nn.Module):
    """One linear projection without bias per teacher, from the encoder's feature into the teacher's space.

    Args:
        global_dim: Width of the encoder's feature.
        text_dim: Width of the text teacher's vectors.
        image_dims: Image teacher -> width of its vectors.
        with_text: Image teachers that share the projection of the text teacher, because one model made both.

    Raises:
        ValueError: A teacher is to share the projection but has vectors of another width, or is unknown.
    """

    def __init__(
        self, global_dim: int, *, text_dim: int, image_dims: Mapping[str, int], with_text: Collection[str] = ()
    ) -> None:
        super().__init__()
        if unfit := [name for name in with_text if image_dims.get(name) != text_dim]:
            raise ValueError(f"{', '.join(unfit)}: no image teacher with {text_dim} values, as the text teacher has")
        own = {name: dim for name, dim in image_dims.items() if name not in with_text}
        self.text = _projection(global_dim, text_dim)
        self.images = nn.ModuleDict({name: _projection(global_dim, dim) for name, dim in own.items()})
        self.image_dims = dict(image_dims)
        self.with_text = sorted(with_text)

    def embed(self, feature: Float[Tensor, "b d"], teacher: str | None = None) -> Float[Tensor, "b c"]:
        """Return unit vectors in the space of the text teacher (None) or of an image teacher, in float32."""
        head = self.text if teacher is None or teacher in self.with_text else self.images[teacher]
        with torch.autocast(feature.device.type, enabled=False):
            return F.normalize(head(feature.float()), dim=-1)


def _projection(global_dim: int, dim: int) -> nn.Linear:
    """Return a linear layer without bias, drawn from N(0, 1 / dim)."""
    layer = nn.Linear(global_dim, dim, bias=False)
    nn.init.normal_(layer.weight, std=dim**-0.5)
    return layer


class Align(nn.Module):
    """Pull every cloud towards its own caption and its own view, away from those of the other clouds.

    Args:
        encoder: What is pre-trained; sees whole clouds.
        text_dim: Width of the text teacher's vectors.
        image_dims: Image teacher -> width of its vectors.
        per_teacher_temperature: One learned temperature per teacher instead of one for all.
        multi_positive: In the text term, any cloud with the same sentence is a right answer.
        detached_gather: Gather clouds of other processes without gradient, see ``contrastive_loss``.
        with_text: Image teachers that share the projection of the text teacher.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        text_dim: int,
        image_dims: Mapping[str, int],
        per_teacher_temperature: bool,
        multi_positive: bool,
        detached_gather: bool = False,
        with_text: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.encoder = encoder
        if isinstance(encoder, PointM2AEEncoder):
            encoder.norms[:-1].requires_grad_(False)  # nobody reads the tokens of the finer scales
        self.heads = Heads(encoder.global_dim, text_dim=text_dim, image_dims=image_dims, with_text=with_text)
        self.multi_positive = multi_positive
        self.detached_gather = detached_gather
        num_scales = 1 + len(image_dims) if per_teacher_temperature else 1
        self.log_scale = nn.Parameter(torch.full((num_scales,), -math.log(START_TEMPERATURE)))

    def forward(self, batch: AlignBatch) -> Losses:
        """Equation 3: the text term plus one term per image teacher; ``duplicates`` is the share of shared captions."""
        feature = self.encoder.pool(self.encoder(self.encoder.group(batch.points.coord)))
        text_scale, *image_scales = self.scales()
        text = contrastive_loss(
            self.heads.embed(feature),
            batch.text,
            scale=text_scale,
            present=batch.has_text,
            identity=batch.text_id if self.multi_positive else None,
            detached_gather=self.detached_gather,
        )
        terms = {"loss/text": text}
        for name, scale in zip(self.heads.image_dims, image_scales, strict=True):
            terms[f"loss/{name}"] = contrastive_loss(
                self.heads.embed(feature, name),
                batch.images[name],
                scale=scale,
                present=batch.has_image[name],
                detached_gather=self.detached_gather,
            )
        text_id, has_text = gather_values(batch.text_id), gather_values(batch.has_text)
        same = (text_id.unsqueeze(1) == text_id) & has_text
        shared = (same.sum(1) > 1) & has_text
        return {
            "loss": torch.stack(list(terms.values())).sum(),
            **terms,
            "duplicates": shared.float().sum() / has_text.sum().clamp_min(1),
            "scale": text_scale,
        }

    def scales(self) -> tuple[Float[Tensor, ""], ...]:
        """Return the inverse temperature of the text term and of every image term."""
        return tuple(self.log_scale.exp().expand(1 + len(self.heads.image_dims)).unbind())

    @torch.no_grad()
    def clamp_scales(self) -> None:
        """Keep the inverse temperatures between 1 and 100; to be called after every step."""
        self.log_scale.clamp_(0.0, LARGEST_LOG_SCALE)


def save_heads(folder: Path, align: Align, *, text_teacher: str, encoder_sha256: str, features_digest: str) -> None:
    """Write the projections beside the encoder in ``folder``."""
    heads = align.heads
    save_file({name: value.detach().cpu().contiguous() for name, value in heads.state_dict().items()}, folder / WEIGHTS)
    names = ["text", *heads.image_dims]
    card = HeadsCard(
        global_dim=heads.text.in_features,
        text_teacher=text_teacher,
        text_dim=heads.text.out_features,
        image_dims=heads.image_dims,
        scales=dict(zip(names, (float(scale.detach()) for scale in align.scales()), strict=True)),
        encoder_sha256=encoder_sha256,
        features_digest=features_digest,
        with_text=heads.with_text,
    )
    (folder / CARD).write_text(json.dumps(asdict(card), indent=2) + "\n", encoding="utf-8")


def load_heads(folder: Path) -> tuple[Heads, HeadsCard]:
    """Read the projections beside an aligned encoder.

    Raises:
        CheckpointError: The encoder has none, or the files are damaged or of another format.
    """
    path = folder / CARD
    if not path.is_file():
        raise CheckpointError(
            f"{folder} holds no projections to teachers: {CARD} is missing; give an encoder of `pointloom align`"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format") != FORMAT:
            raise CheckpointError(
                f"{path}: format {content.get('format')!r}, this version reads {FORMAT}; run `pointloom align` again"
            )
        card = HeadsCard(**content)
        heads = Heads(card.global_dim, text_dim=card.text_dim, image_dims=card.image_dims, with_text=card.with_text)
        heads.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder}: the projections are damaged ({reason}); run `pointloom align` again"
        ) from error
    return heads.eval(), card

"""Where downloaded weights lie, what to say when they are missing, and how they are named in cache keys.

The package ships no foreign weights and downloads none: a person puts them into a folder once. ``POINTLOOM_MODELS``
names that folder, ``~/.cache/pointloom/models`` is the default.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pointloom.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn

DEFAULT_FOLDER = "~/.cache/pointloom/models"


@dataclass(frozen=True)
class KnownWeights:
    """A set of weights that a person can download.

    Attributes:
        source: Repository on huggingface.co.
        size_gb: Size of the weight file, 10^9 bytes.
        licence: Of the weights.
        only: Option of ``hf download`` that leaves out what is not read: the same weights in other formats.
    """

    source: str
    size_gb: float
    licence: str
    only: str


_OPT = (
    "the OPT language model inside is for non-commercial research only; blip2-flan-t5-xl with Flan-T5 (Apache-2.0) is "
    "the alternative without that limit"
)
_CLIP, _NO_PICKLES = "--include 'open_clip*'", "--exclude '*.bin'"
KNOWN_WEIGHTS: dict[str, KnownWeights] = {
    "CLIP-ViT-B-32-laion2B-s34B-b79K": KnownWeights("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", 0.61, "MIT", _CLIP),
    "CLIP-ViT-L-14-laion2B-s32B-b82K": KnownWeights("laion/CLIP-ViT-L-14-laion2B-s32B-b82K", 1.71, "MIT", _CLIP),
    "CLIP-ViT-bigG-14-laion2B-39B-b160k": KnownWeights("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", 10.2, "MIT", _CLIP),
    "dinov2-small": KnownWeights("facebook/dinov2-small", 0.09, "Apache-2.0", _NO_PICKLES),
    "dinov2-base": KnownWeights("facebook/dinov2-base", 0.35, "Apache-2.0", _NO_PICKLES),
    "dinov2-large": KnownWeights("facebook/dinov2-large", 1.22, "Apache-2.0", _NO_PICKLES),
    "blip2-opt-2.7b": KnownWeights("Salesforce/blip2-opt-2.7b", 15.0, f"MIT, but {_OPT}", _NO_PICKLES),
    "blip2-opt-6.7b": KnownWeights("Salesforce/blip2-opt-6.7b", 31.0, f"MIT, but {_OPT}", _NO_PICKLES),
    "blip2-flan-t5-xl": KnownWeights(
        "Salesforce/blip2-flan-t5-xl", 15.8, "MIT, the Flan-T5 inside Apache-2.0", _NO_PICKLES
    ),
}
"""Folder name below the folder of models -> where its content comes from; sizes and licences as on the model cards."""


def models_folder() -> Path:
    """Return the folder for downloaded weights."""
    return Path(os.environ.get("POINTLOOM_MODELS") or DEFAULT_FOLDER).expanduser()


def find_weights(weights: str, *, needed_by: str, known: KnownWeights | None = None) -> Path:
    """Return the file or folder of some weights.

    Args:
        weights: Absolute, or relative to ``models_folder()``; open_clip's prefix ``local-dir:`` is understood.
        needed_by: Who asks, for the message.
        known: Where they come from; by default looked up by the folder's name.

    Raises:
        CheckpointError: There is nothing; the message says what to download, from where and where to put it.
    """
    name = weights.removeprefix("local-dir:")
    path = models_folder() / Path(name).expanduser()
    if path.exists():
        return path
    found = known or next((KNOWN_WEIGHTS[part] for part in Path(name).parts if part in KNOWN_WEIGHTS), None)
    advice = (
        f"download {found.source} from https://huggingface.co/{found.source} (about {found.size_gb:g} GB, licence "
        f"{found.licence}), for example with `hf download {found.source} {found.only} --local-dir {path}`"
        if found
        else f"put them there; sources of known weights: {_sources()}"
    )
    raise CheckpointError(
        f"{needed_by}: no weights at {path}: {advice}. Weights are looked for below {models_folder()}; set "
        "POINTLOOM_MODELS to use another folder. Nothing is downloaded by itself, and random weights are never used"
    )


def _sources() -> str:
    return ", ".join(f"{name} (huggingface.co/{known.source})" for name, known in KNOWN_WEIGHTS.items())


def module_sha256(module: "nn.Module") -> str:
    """Return the SHA-256 over all weights of a model: what was really loaded, whatever file it came from."""
    import torch

    whole = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        whole.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        whole.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return whole.hexdigest()

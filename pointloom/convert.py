"""Checkpoints of the published repositories become encoders, and encoders become such checkpoints."""

import pickle
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from pointloom.data.replace import replaced_folder
from pointloom.errors import CheckpointError
from pointloom.models import SCENE_ENCODERS, build_encoder, build_scene_encoder
from pointloom.models.official_names import LAYOUTS, Layout, from_official, to_official
from pointloom.structures import as_module
from pointloom.train.checkpoint import (
    Labels,
    file_sha256,
    load_encoder_module,
    load_scene_encoder_module,
    read_card,
    save_encoder,
)

WRAPPERS = ("module.", "base_model.")
STATES = ("base_model", "model_state_dict", "state_dict", "model")
OWN_NOTE = "pointloom"
_SCALAR = np.float64().__reduce__()[0]
NUMPY_NUMBERS: list[Any] = [  # published checkpoints hold accuracies as such; the module has two names
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64)),
]


@dataclass(frozen=True)
class Conversion:
    """What became of the weights of a checkpoint.

    Attributes:
        builder: The encoder.
        builder_args: Its arguments.
        labels: Which labels the weights have seen.
        matched: How many weights were taken over.
        expected: How many weights the encoder has.
        fresh: Weights of the encoder that the checkpoint lacks and that keep their first values.
        left_out: Part of the checkpoint -> how many of its weights are no part of the encoder.
    """

    builder: str
    builder_args: dict[str, Any]
    labels: Labels
    matched: int
    expected: int
    fresh: tuple[str, ...]
    left_out: dict[str, int]


@dataclass(frozen=True)
class _Sorted:
    encoder: dict[str, Tensor]  # by their names, without prefix
    left_out: dict[str, int]
    finetuned: bool


def convert_checkpoint(
    checkpoint: Path,
    output: Path,
    *,
    layout: str,
    up: str | None = None,
    num_points: int | None = None,
    encoder_args: Mapping[str, Any] | None = None,
    leave_out: Sequence[str] = (),
) -> Conversion:
    """Turn a pre-training or fine-tuning checkpoint of a published repository into an encoder folder.

    Args:
        checkpoint: What the repository saved with ``torch.save``; with or without ``module.`` in front of the names.
        output: Folder to write; an encoder that is there is replaced.
        layout: Name in ``LAYOUTS``.
        up: Axis that points up in the clouds of that training; the weights are turned to +Z. None: as published.
        num_points: Points per cloud of that training, None for the published pre-training.
        encoder_args: Arguments of the builder that differ from the published pre-training, such as ``num_groups``.
        leave_out: Beginnings of further names that are no part of the encoder.

    Raises:
        CheckpointError: The file is none, would run code, holds weights that nobody knows, or lacks some.
    """
    plan, up = _plan(layout, up)
    content = read_checkpoint(checkpoint)
    known = _own_note(content)
    parts = _sort(_unwrapped(_state(content, checkpoint)), plan, checkpoint, leave_out)
    args = dict(plan.args) | (dict(plan.finetuned_args) if parts.finetuned else {})
    if "cls_token" in parts.encoder:
        args["class_token"] = True
    args |= known.get("builder_args", {}) | dict(encoder_args or {})
    builder, encoder = _fitting_encoder(parts, plan, args, checkpoint)
    state, fresh = _own_state(as_module(encoder), parts, plan, up=up)
    as_module(encoder).load_state_dict(state)
    labels: Labels = known.get("labels") or ("classes" if parts.finetuned else "none")
    with replaced_folder(output) as folder:
        save_encoder(
            folder,
            as_module(encoder),
            builder=builder,
            builder_args=args,
            method=known.get("method", plan.method),
            labels=labels,
            num_points=num_points or known.get("num_points", plan.num_points),
            data_digest=None,
            params={"converted_from": checkpoint.name, "layout": layout, "up": up},
            parent_sha256=file_sha256(checkpoint),
        )
    return Conversion(builder, args, labels, len(state) - len(fresh), len(state), fresh, parts.left_out)


def describe(made: Conversion) -> str:
    """Say in a few lines what was taken over and what was not."""
    text = f"encoder {made.builder} {made.builder_args}, {made.matched} of {made.expected} weights matched"
    text += f"\nlabels: {made.labels}"
    if made.fresh:
        text += f"\nnot in the checkpoint, as in a new encoder: {_some(made.fresh)}"
    if made.left_out:
        text += "\nleft out, no part of the encoder: "
        text += ", ".join(f"{name} ({count})" for name, count in made.left_out.items())
    return text


def export_encoder(encoder: Path, output: Path, *, layout: str, up: str | None = None) -> int:
    """Write an encoder as a checkpoint that the fine-tuning code of a published repository loads.

    Args:
        encoder: Folder of the encoder.
        output: File to write.
        layout: Name in ``LAYOUTS``.
        up: Axis that points up in the clouds of that repository, None: as published.

    Returns:
        Number of weights written, all that the encoder has.

    Raises:
        CheckpointError: There is no encoder, or it is of another kind than the repository's.
    """
    plan, up = _plan(layout, up)
    card = read_card(encoder)
    load = load_scene_encoder_module if card.builder in SCENE_ENCODERS else load_encoder_module
    state = as_module(load(encoder)[0]).state_dict()
    if card.builder not in plan.builders:
        raise CheckpointError(
            f"{encoder} holds encoder {card.builder!r}; {layout} has {' or '.join(plan.builders)}: choose another --to"
        )
    if layout == "point-pqae" and "cls_token" not in state:
        raise CheckpointError(
            f"{encoder} has no class token, which {layout} needs; use --to point-mae, which {layout} reads too "
            "(--model-prefix MAE_encoder)"
        )
    names = {name: plan.official_name(name) for name in state}
    start = plan.wrapper + plan.prefix
    official = {start + names[name]: to_official(value, names[name], up=up) for name, value in state.items()}
    note = {
        "builder_args": card.builder_args,
        "labels": card.labels,
        "method": card.method,
        "num_points": card.num_points,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + ".tmp")
    torch.save({plan.container: official, OWN_NOTE: note}, partial)
    partial.replace(output)
    return len(official)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running anything in it: tensors, containers, strings and numbers only.

    Raises:
        CheckpointError: It is missing, no checkpoint, or holds objects of other classes.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is no file; give a checkpoint that the published code wrote (.pth)")
    try:
        with torch.serialization.safe_globals(NUMPY_NUMBERS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), "")
        if not reason:
            raise _not_a_checkpoint(path, error) from error
        raise CheckpointError(
            f"{path} was not read: it holds objects beside tensors and numbers, and reading those can run any code "
            f"({reason}). If you trust its source, save its weights alone where they were made: "
            "torch.save({'base_model': model.state_dict()}, ...)"
        ) from error
    except Exception as error:  # torch raises many kinds for files of other formats
        raise _not_a_checkpoint(path, error) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dictionary with weights")
    return content


def _plan(layout: str, up: str | None) -> tuple[Layout, str]:
    """Return how a repository stores encoders, and the axis that points up.

    Raises:
        CheckpointError: Its weights cannot be turned, and another axis than its own is asked for.
    """
    plan = LAYOUTS[layout]
    if up not in {None, plan.up} and not plan.turnable:
        raise CheckpointError(
            f"{layout} was trained with {plan.up} up and its weights cannot be turned: leave out --up"
        )
    return plan, up or plan.up


def _not_a_checkpoint(path: Path, error: Exception) -> CheckpointError:
    first = (str(error).strip() or "no reason").splitlines()[0]
    return CheckpointError(
        f"{path} is no checkpoint of torch: expected a file written by torch.save (.pth); reading it failed with "
        f"{type(error).__name__}: {first}"
    )


def _state(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the weights inside a checkpoint."""
    found = next((content[key] for key in STATES if key in content), content)
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(
            f"{path} holds no weights: expected them under {' or '.join(map(repr, STATES))}, or alone; "
            f"got the keys {_some(map(str, content))}"
        )
    return found


def _own_note(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``export_encoder`` wrote beside the weights, nothing for other checkpoints."""
    note = content.get(OWN_NOTE)
    return note if isinstance(note, dict) and note.get("labels") in get_args(Labels) else {}


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take what data-parallel training puts in front of all names away."""
    names = {name: name for name in state}
    for name in names:
        while names[name].startswith(WRAPPERS):
            names[name] = names[name].partition(".")[2]
    return {names[name]: value for name, value in state.items()}


def _sort(state: Mapping[str, Tensor], plan: Layout, path: Path, leave_out: Sequence[str]) -> _Sorted:
    """Tell the encoder's weights from known others; nothing may be left that nobody knows."""
    renamed = {plan.aliases.get(name, name): value for name, value in state.items()}
    prefixed = any(name.startswith(plan.prefix) for name in renamed)
    encoder, others = {}, []
    for name, value in renamed.items():
        bare = name.removeprefix(plan.prefix) if prefixed else name
        inside = bare != name or not prefixed
        if inside and any(bare == theirs or bare.startswith(theirs + ".") for theirs in plan.names.values()):
            encoder[bare] = value
        else:
            others.append(name)
    unknown = [name for name in others if not name.startswith((*plan.extras, *plan.heads, *leave_out))]
    if unknown or not encoder:
        raise CheckpointError(
            f"{path} is no such checkpoint: {len(encoder)} of {len(state)} weights belong to the encoder; unknown: "
            f"{_some(unknown)}. Check --from (one of {', '.join(LAYOUTS)}); name weights that may be left out with "
            "--leave-out"
        )
    heads = any(name.startswith(plan.heads) for name in others)
    left_out = Counter(name.partition(".")[0] for name in others)
    return _Sorted(encoder, dict(sorted(left_out.items())), finetuned=heads or not prefixed)


def _fitting_encoder(parts: _Sorted, plan: Layout, args: Mapping[str, Any], path: Path) -> tuple[str, nn.Module]:
    """Build the encoder whose weights have the checkpoint's names and shapes."""
    complaints: list[tuple[int, str]] = []
    for builder in plan.builders:
        build = build_scene_encoder if builder in SCENE_ENCODERS else build_encoder
        encoder = as_module(build(builder, **args))
        own = encoder.state_dict()
        names = plan.own_names(own)
        missing = [
            theirs
            for theirs, name in names.items()
            if theirs not in parts.encoder and not (parts.finetuned and name.startswith(plan.may_lack))
        ]
        surplus = sorted(parts.encoder.keys() - names.keys())
        misshapen = [
            f"{theirs} {tuple(value.shape)} instead of {tuple(own[names[theirs]].shape)}"
            for theirs, value in parts.encoder.items()
            if theirs in names and from_official(value, theirs, up="z").shape != own[names[theirs]].shape
        ]
        if not (missing or surplus or misshapen):
            return builder, encoder
        fitting = len(parts.encoder) - len(surplus) - len(misshapen)
        complaint = (
            f"{fitting} of {len(own)} weights match; missing: {_some(missing)}; left over: {_some(surplus)}; "
            f"other shape: {_some(misshapen)}"
        )
        complaints.append((fitting, f"the nearest is {builder}: {complaint}"))
    raise CheckpointError(
        f"{path} fits none of our encoders with {dict(args)} (see --encoder-args); {max(complaints)[1]}"
    )


def _own_state(
    encoder: nn.Module, parts: _Sorted, plan: Layout, *, up: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the encoder's whole state, and the names for which the checkpoint has nothing."""
    state = encoder.state_dict()
    own = plan.own_names(state)
    taken = {own[theirs]: from_official(value, theirs, up=up) for theirs, value in parts.encoder.items()}
    return state | taken, tuple(name for name in state if name not in taken)


def _some(names: Iterable[str]) -> str:
    """List a few names, and say how many more there are."""
    known = list(names)
    rest = f" and {len(known) - 6} more" if len(known) > 6 else ""
    return ", ".join(known[:6]) + rest if known else "none"

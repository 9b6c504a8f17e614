"""What a stage function's signature says: its parameter model and its artefacts; the command line is built from it."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pointloom.stages.artifacts import Artifact
from pointloom.stages.fan_out import Shard
from pointloom.stages.params import StageParams

STATE_DEFAULT = Path("state")
LIMITS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "min_length": "length >=", "max_length": "length <="}


@dataclass(frozen=True)
class StageSignature:
    """A stage as the command line, ``dvc.yaml`` and the tests see it.

    Attributes:
        name: Sub-command, DVC stage and section of ``params.yaml``.
        function: The stage.
        params: Its parameter models; several where ``method`` chooses one (a discriminated union).
        artifacts: Its paths by argument name, in order.
        splits: Whether parts of its work can be done by several processes (it has an argument ``shard``).
    """

    name: str
    function: Callable[..., None]
    params: tuple[type[StageParams], ...]
    artifacts: Mapping[str, Artifact]
    splits: bool

    @property
    def doc(self) -> str:
        """Return the docstring without indentation."""
        return inspect.getdoc(self.function) or ""


@dataclass(frozen=True)
class ParamDoc:
    """One parameter for people.

    Attributes:
        name: Dotted name inside the section.
        type: Its type in short.
        limits: Its range, empty when there is none.
        doc: Its description, or its line of the model's docstring.
    """

    name: str
    type: str
    limits: str
    doc: str


def read_signature(name: str, function: Callable[..., None]) -> StageSignature:
    """Read a stage function: the first argument is its parameters, every other one a path, or ``shard``.

    Raises:
        TypeError: The function is no stage.
    """
    hints = get_type_hints(function, include_extras=True)
    first, *others = inspect.signature(function).parameters
    models = _variants(hints[first])
    if not all(inspect.isclass(model) and issubclass(model, StageParams) for model in models):
        raise TypeError(f"stage {name}: the first argument must be a StageParams, got {hints[first]}")
    artifacts: dict[str, Artifact] = {}
    for argument in others:
        if hints[argument] == Shard | None:
            continue
        found = [item for item in get_args(hints[argument]) if isinstance(item, Artifact)]
        if get_origin(hints[argument]) is not Annotated or len(found) != 1:
            raise TypeError(f"stage {name}: argument {argument} must be annotated with one Artifact")
        artifacts[argument] = found[0]
    return StageSignature(
        name=name, function=function, params=models, artifacts=artifacts, splits=len(artifacts) < len(others)
    )


def _variants(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)


def describe_params(model: type[BaseModel], prefix: str = "") -> list[ParamDoc]:
    """List all parameters of a model, nested ones with dotted names; those of a union's variants side by side."""
    docs = attribute_docs(model)
    found: list[ParamDoc] = []
    for name, field in model.model_fields.items():
        nested = nested_models(field.annotation)
        if nested:
            by_name: dict[str, ParamDoc] = {}
            for item in (item for inner in nested for item in describe_params(inner, f"{prefix}{name}.")):
                by_name.setdefault(item.name, item)
            found.extend(by_name.values())
            continue
        found.append(
            ParamDoc(
                f"{prefix}{name}", _type_text(field.annotation), _limits(field), field.description or docs.get(name, "")
            )
        )
    return found


def nested_models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models inside an annotation such as ``OptimParams | None``; a union may have several."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in nested_models(inner)]


def attribute_docs(model: type[BaseModel]) -> dict[str, str]:
    """Read the ``Attributes:`` sections of a model's docstring and its bases' as one line per name."""
    docs: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        _, _, section = (inspect.cleandoc(owner.__doc__ or "")).partition("Attributes:\n")
        name = ""
        for line in section.splitlines():
            start = re.match(r"    (\w+): (.*)", line)
            if start:
                name = start[1]
                docs[name] = start[2]
            elif name and line.startswith("        "):
                docs[name] += " " + line.strip()
            elif line and not line.startswith(" "):
                break
    return docs


def _type_text(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(str(value) for value in inner)
    if origin in {Union, UnionType}:
        return " | ".join("null" if item is NoneType else _type_text(item) for item in inner)
    if origin is Annotated:
        return _type_text(inner[0])
    if origin in {tuple, list, set, frozenset}:
        return "list of " + _type_text(inner[0])
    if origin is dict:
        return f"map of {_type_text(inner[0])} to {_type_text(inner[1])}"
    return str(getattr(annotation, "__name__", annotation))


def _limits(field: FieldInfo) -> str:
    parts = []
    for item in field.metadata:
        for attribute, sign in LIMITS.items():
            value = getattr(item, attribute, None)
            if value is not None:
                parts.append(f"{sign} {value}")
        pattern = getattr(item, "pattern", None)
        if pattern:
            parts.append(str(pattern).strip("^$()").replace("|", " | "))
    if field.default is not PydanticUndefined:
        parts.append(f"default {field.default}")
    return ", ".join(parts)

"""Read the parameters of a stage from ``params.yaml:section.name`` or from JSON, with errors that help."""

import difflib
import json
import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pointloom.errors import ParamsError
from pointloom.stages.params import StageParams
from pointloom.stages.signature import nested_models

Models = tuple[type[StageParams], ...]

DISCRIMINATORS = ("method", "task")
"""Keys that say which of several models a section is."""


def read_params(models: Models, source: str) -> StageParams:
    """Read and validate parameters.

    Args:
        models: What the section may be; ``method`` or ``task`` chooses among several.
        source: ``FILE:SECTION`` with a dotted section, or a JSON object.

    Raises:
        ParamsError: No such file or section, no valid YAML or JSON, or values the stage does not accept.
    """
    if source.lstrip().startswith("{"):
        try:
            return validate(models, json.loads(source), where="--params")
        except json.JSONDecodeError as error:
            raise ParamsError(f"--params: not a JSON object: {error}") from error
    file, _, section = source.rpartition(":")
    if not file:
        file, section = source, ""
    return validate(models, select_section(read_yaml(Path(file)), section, file), where=f"{file}, section {section!r}")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ParamsError: The file is missing or no such YAML.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ParamsError(
            f"{path}: no such file (in {Path.cwd()}); give --params FILE:SECTION, for example params.yaml:prepare, "
            "or a JSON object"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParamsError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: expected sections (a mapping), got {type(content).__name__}")
    return content


def select_section(content: dict[str, Any], section: str, file: str | Path) -> Any:
    """Return the part of a params file that a dotted section names.

    Raises:
        ParamsError: There is no such section; the message lists those that exist.
    """
    part: Any = content
    for depth, key in enumerate(section.split(".") if section else []):
        if not isinstance(part, dict) or key not in part:
            above = ".".join(section.split(".")[:depth])
            known = sorted(map(str, part)) if isinstance(part, dict) else []
            inside = f"section {above!r}" if above else "it"
            raise ParamsError(
                f"{file}: no section {section!r}; {inside} has {', '.join(known)}{did_you_mean(key, known)}"
            )
        part = part[key]
    return part


def validate(models: Models, values: Any, *, where: str) -> StageParams:
    """Validate a section; every problem is one line with the key, what is wrong, and the likely meant name.

    Raises:
        ParamsError: The values do not fit.
    """
    if not isinstance(values, dict):
        raise ParamsError(f"{where}: expected a mapping of parameters, got {values!r}")
    known = {name for each in models for name in each.model_fields}
    if values and not known & set(values) and all(isinstance(value, dict) for value in values.values()):
        raise ParamsError(
            f"{where}: expected parameters, got the entries {', '.join(map(str, values))}; name one of them after a "
            f"dot, as in FILE:SECTION.{next(iter(values))}"
        )
    model = _choose(models, values, where=where)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(model, dict(problem)) for problem in error.errors(include_url=False)]
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise ParamsError(f"{where}: {count}\n" + "\n".join(f"  {line}" for line in lines)) from error


def _choose(models: Models, values: dict[str, Any], *, where: str) -> type[StageParams]:
    """Return the model that the values name by ``method`` or ``task``; a default of that key may be left out."""
    if len(models) == 1:
        return models[0]
    key = next(name for name in DISCRIMINATORS if all(name in model.model_fields for model in models))
    named = {name: model for model in models for name in get_args(model.model_fields[key].annotation)}
    defaults = [model.model_fields[key].default for model in models if not model.model_fields[key].is_required()]
    chosen = values.get(key, *defaults)
    if chosen not in named:
        raise ParamsError(
            f"{where}: {key}: expected one of {', '.join(named)}, got {chosen!r}"
            f"{did_you_mean(str(chosen), list(named))}"
        )
    return named[chosen]


def _explain(model: type[BaseModel], problem: dict[str, Any]) -> str:
    path = [str(part) for part in problem["loc"]]
    name = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = _known_names(model, path[:-1])
        return f"{name}: unknown key{did_you_mean(path[-1], known) or '; known: ' + ', '.join(known)}"
    if problem["type"] == "missing":
        return f"{name}: missing, every parameter must be given"
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], dict):  # a rule about several keys, whose values the message names itself
        return f"{name}: {message}".removeprefix(": ")
    hint = ""
    if problem["type"] == "literal_error":
        hint = did_you_mean(str(problem["input"]), re.findall("'([^']*)'", problem["ctx"]["expected"]))
    return f"{name}: {message[0].lower()}{message[1:]}, got {problem['input']!r}{hint}"


def _known_names(model: type[BaseModel], path: list[str]) -> list[str]:
    models = [model]
    for key in path:
        inner = [n for m in models if key in m.model_fields for n in nested_models(m.model_fields[key].annotation)]
        tagged = [m for m in models if any(key in get_args(field.annotation) for field in m.model_fields.values())]
        models = inner or tagged or models  # neither: an index of a list or a key of a map
    return list(dict.fromkeys(name for m in models for name in m.model_fields))


def did_you_mean(key: str, known: list[str]) -> str:
    """Return a hint for a misspelt key, empty when nothing is close."""
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""

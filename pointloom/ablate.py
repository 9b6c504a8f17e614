"""Ablation tables of the papers: one workspace whose parameters have an entry for every row and seed."""

import copy
import json
import logging
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from pointloom.errors import ParamsError, WorkspaceError
from pointloom.stages import STAGES
from pointloom.stages.align_masked import MaskedFirstParams, MaskedParams, MaskedTogetherParams
from pointloom.stages.params import EncoderArgs, StageParams
from pointloom.stages.read_params import did_you_mean, read_yaml, validate
from pointloom.stages.report_ablation import Measure
from pointloom.workspace import WorkspaceChoices, init_workspace, params_text, template

logger = logging.getLogger(__name__)

Params = dict[str, Any]
FOLDER = "ablations"
SYSTEMS = "systems"
FULL = "full"
RANDOM = "random"
SCRATCH = "scratch"
MASKED: dict[str, type[MaskedParams]] = {"first": MaskedFirstParams, "together": MaskedTogetherParams}


class TuningSpec(StageParams):
    """How encoders of a system are fine-tuned: an entry of the profile, with other builder arguments."""

    entry: str
    encoder_args: EncoderArgs


class SystemSpec(StageParams):
    """The full method that rows change: an entry of a profile, turned into the method."""

    pipeline: Literal["pretrain", "multimodal", "scenes"]
    stage: Literal["pretrain", "distill"]
    entry: str = Field(description="entry in the profile, in the section of the stage and in that of probes")
    drop: list[str] = Field(description="keys of the entry that the method does not have")
    change: dict[str, Any] = Field(description="values of the full method; dots go deeper")
    teacher: dict[str, Any] = Field(default={}, description="values of stage 1, where the stage is the second one")
    finetune: TuningSpec | None = Field(default=None, description="null where no table fine-tunes it")


class RowSpec(StageParams):
    """A row as the paper prints it, and what it changes."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    cells: list[str]
    published: list[float] = Field(description="one value per benchmark of the table; none where there are none")
    change: dict[str, Any] = Field(default={}, description="values that differ from the full method in pre-training")
    tuning: dict[str, Any] = Field(default={}, description="values that differ in fine-tuning")
    probing: dict[str, Any] = Field(default={}, description="values that differ when frozen features are probed")
    system: str | None = Field(default=None, description="another system than the table's")
    encoder: Literal["own", "teacher", "aligned"] = Field(
        default="own",
        description="teacher: the encoder of stage 1, as it is; aligned: one of a stage 1 of its own, to which the "
        "changes belong, with the values of stage 2 for what it has of that",
    )
    not_built: str | None = Field(default=None, description="why there is no such row here")


class TableSpec(StageParams):
    """An ablation table of a paper."""

    title: str
    source: str
    protocol: str = Field(description="how the published values were measured")
    benchmarks: list[str] = Field(description="columns of published values")
    measured: list[Measure] = Field(min_length=1, description="what is measured here")
    system: str
    columns: list[str] = Field(min_length=1, description="what the cells of a row say")
    notes: list[str] = Field(default=[], description="what else differs from the paper")
    rows: list[RowSpec] = Field(min_length=2)

    @model_validator(mode="after")
    def _rectangular(self) -> "TableSpec":
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names) or FULL not in names or RANDOM in names:
            raise ValueError(f"rows need different names, one of them {FULL!r}, none {RANDOM!r}; got {names}")
        for row in self.rows:
            if len(row.cells) != len(self.columns) or len(row.published) not in {0, len(self.benchmarks)}:
                raise ValueError(f"row {row.name!r} needs a cell per column and a value per benchmark")
        return self

    @property
    def full(self) -> RowSpec:
        """Return the row of the full method."""
        return next(row for row in self.rows if row.name == FULL)


@dataclass(frozen=True)
class AblationChoices:
    """What to run.

    Attributes:
        table: Name of the table, see ``table_names``.
        profile: Whose epochs, points and objects to take.
        seeds: How often every row is pre-trained.
        folder: Workspace, None for ``runs/<table>-<profile>``.
        data: Folder of shapes, None for generated ones.
        train_list: File of relative paths, None for a drawn split.
        test_list: Likewise; both or none.
    """

    table: str
    profile: str
    seeds: int
    folder: Path | None = None
    data: Path | None = None
    train_list: Path | None = None
    test_list: Path | None = None


def table_names() -> list[str]:
    """Return the names of all tables."""
    files = (resources.files("pointloom") / "templates" / FOLDER).iterdir()
    names = {file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")} - {SYSTEMS}
    return sorted(names, key=lambda name: (name.rstrip("0123456789"), len(name), name))


def list_tables() -> str:
    """Return a line per table: its name, where it is from, what it is about, and how many rows can be run."""
    lines = []
    for name in table_names():
        table = read_table(name)
        built = sum(row.not_built is None for row in table.rows)
        rows = f"{len(table.rows)} rows" if built == len(table.rows) else f"{built} of {len(table.rows)} rows"
        lines.append(f"{name:<18} {table.title} ({table.source}); {rows}")
    return "\n".join(lines)


def run_ablation(choices: AblationChoices) -> str:
    """Make the workspace of a table if it is not there, run what is not up to date, and return the table as text.

    Raises:
        ParamsError: There is no such table, or the parameters have a problem.
        WorkspaceError: The folder is something else's, or a stage failed.
        BackendError: DVC is not installed.
    """
    from pointloom.report.ablation import as_table
    from pointloom.run import run_workspace

    folder, as_asked = make_workspace(choices)
    if not as_asked:
        logger.warning(
            "%s has other values than this command would write now (edited, or other --seeds): it is run as it is; "
            "for new values delete the folder or choose another one with --workspace",
            folder / "params.yaml",
        )
    page = run_workspace(folder)
    content = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    return f"{as_table(content['ablation'])}\nReport: {page}"


def read_table(name: str) -> TableSpec:
    """Read a table.

    Raises:
        ParamsError: There is no such table, or its file has a problem.
    """
    names = table_names()
    if name not in names:
        raise ParamsError(
            f"no ablation table {name!r}{did_you_mean(name, names)}; all of them: pointloom ablate --list"
        )
    table = validate((TableSpec,), yaml.safe_load(template(f"{FOLDER}/{name}.yaml")), where=f"{FOLDER}/{name}.yaml")
    assert isinstance(table, TableSpec)
    return table


def read_system(name: str) -> SystemSpec:
    """Read what the rows of a table change.

    Raises:
        ParamsError: There is no such system, or the file has a problem.
    """
    systems = yaml.safe_load(template(f"{FOLDER}/{SYSTEMS}.yaml"))
    system = validate((SystemSpec,), systems.get(name), where=f"{FOLDER}/{SYSTEMS}.yaml, {name!r}")
    assert isinstance(system, SystemSpec)
    return system


def ablation_text(choices: AblationChoices) -> str:
    """Return ``params.yaml`` of the workspace of a table.

    Raises:
        ParamsError: There is no such table.
    """
    table = read_table(choices.table)
    profile = yaml.safe_load(params_text(_workspace_choices(choices, table)))
    params = build_params(choices.table, table, profile, seeds=choices.seeds)
    head = f"# {table.source}, with the values of profile {choices.profile}; written by `pointloom ablate`.\n"
    return head + yaml.safe_dump(params, sort_keys=False, allow_unicode=True, width=120)


def make_workspace(choices: AblationChoices) -> tuple[Path, bool]:
    """Make the workspace of a table; one that is already there for the same table is kept, with edits of its values.

    Returns:
        Its folder, and whether its parameters are those that would be written now.

    Raises:
        ParamsError: There is no such table.
        WorkspaceError: The folder is a workspace of another table, or holds other files.
        BackendError: DVC is not installed.
    """
    text = ablation_text(choices)
    workspace = _workspace_choices(choices, read_table(choices.table), params=text)
    init_workspace(workspace)
    present = read_yaml(workspace.folder / "params.yaml")
    name = ((present.get("report") or {}).get("ablation") or {}).get("name")
    if name != choices.table:
        raise WorkspaceError(
            f"{workspace.folder} is a workspace of {f'table {name!r}' if name else 'no ablation table'}, asked for "
            f"{choices.table!r}; choose another folder with --workspace"
        )
    if "finetune" not in read_table(choices.table).measured:  # the report depends on the folder, empty as it is
        (workspace.folder / "reports" / "finetune").mkdir(parents=True, exist_ok=True)
    return workspace.folder, present == yaml.safe_load(text)


def _workspace_choices(choices: AblationChoices, table: TableSpec, *, params: str | None = None) -> WorkspaceChoices:
    own = f"-{choices.data.name}" if choices.data else ""
    return WorkspaceChoices(
        folder=choices.folder or Path("runs") / f"{choices.table}-{choices.profile}{own}",
        pipeline=read_system(table.system).pipeline,
        profile=choices.profile,
        data=choices.data,
        train_list=choices.train_list,
        test_list=choices.test_list,
        params=params,
    )


def build_params(name: str, table: TableSpec, profile: Params, *, seeds: int) -> Params:
    """Return all sections of ``params.yaml``: entries for every row and seed in place of the profile's.

    A seed is that of pre-training, of the points that a probe draws and of fine-tuning, so that the same seed of two
    rows can be paired.

    Args:
        name: Of the table.
        table: What to run.
        profile: Sections of a profile of the table's pipeline.
        seeds: How often every row is pre-trained.
    """
    params: Params = {stage: {} for stage in STAGES} | {"prepare": profile["prepare"]}
    system = read_system(table.system)
    base = method_entry(profile, system, {})
    aligned = changed(profile["align"][base["teacher"]], system.teacher) if system.stage == "distill" else None
    if aligned:
        _add_views(params, profile, aligned)
    builder = aligned["encoder"] if aligned else base["encoder"]
    untrained = {"method": "untrained", "encoder": builder, "encoder_args": {}}
    num_points = base["sampling"]["max_points" if system.pipeline == "scenes" else "num_points"]
    params["pretrain"][SCRATCH] = untrained | {"num_points": num_points, "seed": 0}
    built = [row for row in table.rows if row.not_built is None]
    for seed in range(seeds):
        if aligned:
            params["align"][f"teacher_s{seed}"] = copy.deepcopy(aligned) | {"seed": seed}
        for row in built:
            encoder = _encoder_of(row, table.full, seed)
            if aligned and row.encoder == "aligned":
                params["align"][encoder] = _with_stage_2(aligned, base, row.change) | {"seed": seed}
            elif encoder == f"{row.name}_s{seed}":
                entry = method_entry(profile, read_system(row.system or table.system), row.change)
                entry |= {"teacher": f"teacher_s{seed}"} if aligned else {}
                params[system.stage][encoder] = entry | {"seed": seed}
            _add_measurements(params, profile, table, row, encoder=encoder, name=f"{row.name}_s{seed}", seeds=[seed])
    blank = table.full.model_copy(update={"tuning": {}, "probing": {}})
    _add_measurements(params, profile, table, blank, encoder=SCRATCH, name=RANDOM, seeds=list(range(seeds)))
    params["probe"] = params["probe"] or {RANDOM: _probe_entry(profile, system, table, SCRATCH, list(range(seeds)))}
    params["report"] = copy.deepcopy(profile["report"]) | {
        "title": f"Ablation: {table.title}",
        "baseline": RANDOM,
        "probe_baseline": RANDOM,
        "detail": [f"{FULL}_s0", RANDOM],
        "ablation": _report_table(name, table, seeds),
        **{key: {} for key in ("baselines", "probe_baselines") if key in profile["report"]},
    }
    return params


def method_entry(profile: Params, system: SystemSpec, change: Params) -> Params:
    """Return an entry of the profile as a system has it, with some values changed."""
    entry = {key: value for key, value in profile[system.stage][system.entry].items() if key not in system.drop}
    return changed(changed(entry, system.change), change)


def changed(entry: Params, values: Params) -> Params:
    """Return a copy of an entry with other values; dots in a key go deeper."""
    new = copy.deepcopy(entry)
    for path, value in values.items():
        *above, last = path.split(".")
        part = new
        for key in above:
            part = part[key]
        part[last] = copy.deepcopy(value)
    return new


def _encoder_of(row: RowSpec, full: RowSpec, seed: int) -> str:
    """Return the name of the encoder of a row: its own, that of stage 1, or the full method's where it is the same."""
    if row.encoder == "teacher":
        return f"teacher_s{seed}"
    same = row.system is None and row.change == full.change
    return f"{full.name if same else row.name}_s{seed}"


def _with_stage_2(aligned: Params, second: Params, change: Params) -> Params:
    """Return an entry of stage 1 with changes; ``masked`` takes the values of stage 2 that it has a name for."""
    order = MASKED[change["masked.order"]]
    shared = {key: value for key, value in second.items() if key in order.model_fields}
    return changed(aligned | {"masked": shared}, change)


def _add_views(params: Params, profile: Params, aligned: Params) -> None:
    """Add the entries that alignment needs: features, and the captions and views that these come from."""
    embed = profile["embed"][aligned["features"]]
    caption = profile["caption"][embed["captions"]]
    params["embed"][aligned["features"]] = copy.deepcopy(embed)
    params["caption"][embed["captions"]] = copy.deepcopy(caption)
    for views in dict.fromkeys((embed["views"], caption["views"])):
        params["render"][views] = copy.deepcopy(profile["render"][views])


def _add_measurements(
    params: Params, profile: Params, table: TableSpec, row: RowSpec, *, encoder: str, name: str, seeds: list[int]
) -> None:
    system = read_system(row.system or table.system)
    if set(table.measured) - {"finetune"}:
        params["probe"][name] = changed(_probe_entry(profile, system, table, encoder, seeds), row.probing)
    if "finetune" in table.measured and system.finetune:
        entry = copy.deepcopy(profile["finetune"][system.finetune.entry])
        entry |= {"encoder": encoder, "encoder_args": dict(system.finetune.encoder_args), "seeds": list(seeds)}
        entry["label_epochs"] = {1.0: entry["label_epochs"][1.0]}
        params["finetune"][name] = changed(entry, row.tuning)


def _probe_entry(profile: Params, system: SystemSpec, table: TableSpec, encoder: str, seeds: list[int]) -> Params:
    """Return the profile's values of the protocols that the table measures, a linear SVM where it measures none."""
    entry = copy.deepcopy(profile["probe"][system.entry])
    entry |= {"encoder": encoder, "seeds": list(seeds)}
    if system.pipeline != "scenes":
        return entry | {"linear": None, "mlp3": None, "few_shot": None}
    kept = {name: entry[name] if name in table.measured else None for name in ("linear", "nearest")}
    return entry | {"fractions": [1.0], "instances": None, "grounding": None} | kept


def _report_table(name: str, table: TableSpec, seeds: int) -> Params:
    """Return the table as the report needs it: which results belong to which row."""
    head = table.model_dump(include={"title", "source", "protocol", "benchmarks", "measured", "columns", "notes"})
    rows = []
    for row in table.rows:
        entries = [] if row.not_built else [f"{row.name}_s{seed}" for seed in range(seeds)]
        same = {"cells": row.cells, "published": row.published, "not_built": row.not_built}
        rows.append({**same, "entries": entries, "is_full": row.name == FULL})
    return {"name": name, **head, "rows": rows, "untrained": RANDOM}

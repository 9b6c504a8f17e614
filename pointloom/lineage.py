"""``pointloom lineage ID``: what made this, and what it made, whatever kind of id one has.

An id is a path, a digest, a checksum, a git revision, or the id of a run in MLflow or Kubeflow Pipelines; ids of six
characters or more may be cut short.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointloom.errors import WorkspaceError
from pointloom.provenance import KINDS, OUTPUTS, Run, merged, server_runs, step_runs, workspace_runs
from pointloom.stages.executor import describe
from pointloom.train.spool import tracking_target
from pointloom.workspace import MARKER, open_workspace

logger = logging.getLogger(__name__)

SHORTEST = 6
Row = dict[str, Any]

GROUPS: dict[str, Callable[[Run], str]] = {
    "Kubeflow run": lambda run: run.kubeflow,
    "run of a workspace": lambda run: run.parent,
    "git revision": lambda run: run.revision,
}
"""Ids that several runs share."""


@dataclass(frozen=True)
class Subject:
    """What an id means.

    Attributes:
        kind: ``encoder``, ``dataset`` and so on; ``run``; or a key of ``GROUPS``.
        id: Its full id; stage and entry (``finetune/mae``) where a result has no other.
    """

    kind: str
    id: str


class History:
    """All runs that are known, oldest first, and who made and used what.

    Args:
        runs: In any order; what several places say of the same run is joined.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = merged(runs)
        self.makers: dict[str, list[Run]] = defaultdict(list)
        self.users: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            if run.made:
                self.makers[run.made].insert(0, run)
            for digest in set(run.used.values()):
                self.users[digest].append(run)


def read_history(folder: Path) -> History:
    """Collect all runs that a folder knows of.

    Args:
        folder: A workspace, with its MLflow, or a folder of artefacts of a pipeline.

    Raises:
        WorkspaceError: It is neither.
    """
    if not any((each / MARKER).is_file() for each in (folder.absolute(), *folder.absolute().parents)):
        return History(step_runs(folder))
    workspace = open_workspace(folder).folder
    runs = list(workspace_runs(workspace))
    target = tracking_target(workspace)
    if target:
        try:
            runs += server_runs(target)
        except WorkspaceError as error:
            logger.warning("%s; what follows is from the files of the workspace alone", error)
    return History(runs)


def find_subject(history: History, text: str, folder: Path) -> Subject:
    """Say what an id means.

    Args:
        history: All that is known.
        text: The id, or a path, relative to here or to the folder.
        folder: The workspace.

    Raises:
        WorkspaceError: Nothing, or more than one thing, has this id; the message lists what there is.
    """
    for path in (Path(text), folder / text):
        if path.exists():
            return _subject_of_path(history, path, folder)
    if len(text) < SHORTEST:
        raise WorkspaceError(f"{text}: an id has at least {SHORTEST} characters; or give a path such as models/mae")
    found = sorted({subject for subject in _subjects(history) if subject.id.startswith(text.lower())}, key=str)
    exact = [subject for subject in found if subject.id == text.lower()]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        listed = "".join(f"\n  {subject.kind:<18} {subject.id}" for subject in found)
        raise WorkspaceError(f"{text} is the beginning of {len(found)} ids; give more of it:{listed}")
    raise WorkspaceError(
        f"{text}: none of the {len(history.runs)} runs in {folder.absolute()} has this id, made it or used it; give a "
        "path, a run of MLflow or Kubeflow, a git revision, a digest or a checksum, and with --in another workspace"
    )


def _subjects(history: History) -> Iterator[Subject]:
    for run in history.runs:
        if run.mlflow and run.stage != "run":
            yield Subject("run", run.mlflow)
        if run.made:
            yield Subject(KINDS.get(run.stage, "output"), run.made)
        for name, digest in run.used.items():
            if digest not in history.makers:
                yield Subject("encoder" if name == "teacher" else name, digest)
        for kind, of in GROUPS.items():
            if of(run):
                yield Subject(kind, of(run))


def _subject_of_path(history: History, path: Path, folder: Path) -> Subject:
    """Say what a file or folder is: by the checksum of a weights file, by its description, by its place."""
    from pointloom.train.checkpoint import file_sha256

    described = describe(path)
    digest = file_sha256(path) if path.is_file() else described.get("digest", described.get("checkpoint_sha256"))
    if digest:
        subjects = [subject for subject in _subjects(history) if subject.id == digest]
        if subjects:
            return subjects[0]
    place = path.resolve()
    for run in reversed(history.runs):
        if any(place == Path(run.place, output).resolve() for output in run.outputs):
            return Subject("run", run.mlflow or run.label)
    known = sorted({output.format(name="NAME") for outputs in OUTPUTS.values() for output in outputs})
    what = f"sha256 {digest}, which no run of {folder} made or used" if digest else "nothing that a stage makes"
    raise WorkspaceError(f"{path}: {what}; outputs are {', '.join(known)}")


def trace(history: History, subject: Subject) -> Row:
    """Return a subject with what it was made from and what was made from it, as nested JSON values."""
    if subject.kind in GROUPS:
        of = GROUPS[subject.kind]
        members = [run for run in history.runs if of(run) == subject.id and run.stage != "run"]
        return {"kind": subject.kind, "id": subject.id, "runs": [_flat(run) for run in members]}
    if subject.kind == "run":
        run = next(run for run in reversed(history.runs) if subject.id in (run.mlflow, run.label))
        return _facts(run) | {"from": _origins(history, run, set()), "made": _results(history, run, set())}
    made_by = [_facts(run) | {"from": _origins(history, run, set())} for run in history.makers.get(subject.id, ())]
    return {"kind": subject.kind, "id": subject.id, "made_by": made_by, "used_by": _uses(history, subject.id, set())}


def _facts(run: Run) -> Row:
    facts = {name: value for name, value in vars(run).items() if value not in ("", None, {}, ()) and name != "made"}
    return {"kind": "run", "id": run.mlflow or run.label} | facts


def _flat(run: Run) -> Row:
    made = [{"kind": KINDS.get(run.stage, "output"), "id": run.made}] if run.made else []
    return _facts(run) | {"from": [{"kind": name, "id": digest} for name, digest in run.used.items()], "made": made}


def _origins(history: History, run: Run, seen: set[str]) -> list[Row]:
    """Return what a run used, each with the newest run that made it, and so on; what was shown is not shown again."""
    rows = []
    for name, digest in run.used.items():
        row: Row = {"kind": name, "id": digest}
        if digest in seen:
            row["shown"] = True
        elif digest in history.makers:
            seen.add(digest)
            maker = history.makers[digest][0]
            row["made_by"] = [_facts(maker) | {"from": _origins(history, maker, seen)}]
        rows.append(row)
    return rows


def _results(history: History, run: Run, seen: set[str]) -> list[Row]:
    """Return what a run made, each with the runs that used it, and so on."""
    if not run.made:
        return []
    row: Row = {"kind": KINDS.get(run.stage, "output"), "id": run.made}
    if run.made in seen:
        return [row | {"shown": True}]
    seen.add(run.made)
    return [row | {"used_by": _uses(history, run.made, seen)}]


def _uses(history: History, digest: str, seen: set[str]) -> list[Row]:
    return [_facts(run) | {"made": _results(history, run, seen)} for run in history.users.get(digest, ())]


def as_text(row: Row) -> str:
    """Return a traced subject as a tree: first what it was made from, then what was made from it."""
    return "\n".join(_lines(row))


def _lines(row: Row) -> Iterator[str]:
    yield _line(row)
    branches = [
        (title, child)
        for key, title in (("made_by", "made by "), ("from", "from "), ("made", "made "), ("used_by", "used by "))
        for child in row.get(key, [])
    ]
    branches += [("", child) for child in row.get("runs", [])]
    for number, (title, child) in enumerate(branches, start=1):
        last = number == len(branches)
        first, *others = _lines(child)
        yield f"{'└' if last else '├'}─ {title}{first}"
        yield from (f"{'   ' if last else '│  '}{line}" for line in others)


def _line(row: Row) -> str:
    if row["kind"] != "run":
        return f"{row['kind']} {row['id']}" + (" (above)" if row.get("shown") else "")
    name = f"/{row['name']}" if row.get("name") else ""
    parts = [f"{row['stage']}{name}", row.get("started", "")]
    if row["status"] != "FINISHED":
        parts.append(row["status"])
    for key, title in (("mlflow", "run"), ("kubeflow", "Kubeflow")):
        if row.get(key):
            parts.append(f"{title} {row[key]}")
    if row.get("revision"):
        parts.append(f"git {row['revision'][:12]}{' (edited)' if row.get('dirty') else ''}")
    if row.get("params"):
        parts.append(f"params {row['params'][:12]}")
    return "  ".join(part for part in [*parts, *row.get("outputs", ())] if part)

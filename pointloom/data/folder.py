"""List the objects of a folder: which files are shapes, and what ``labels.csv``, lists and sub-folders say of them."""

import csv
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

from pointloom.data.clouds import CLOUD_SUFFIXES, looks_numeric
from pointloom.data.records import SPLITS, Failure
from pointloom.data.sources import Listing, SourceObject, split_groups, split_notes
from pointloom.errors import DataError

UP_AXES = {".off": "z", ".obj": "y", ".ply": "z", ".stl": "z", ".glb": "y", ".gltf": "y", ".dae": "z"}
"""Mesh formats and their usual up axis; a DAE file that declares its own is believed."""
UNSUPPORTED = (
    *(".fbx", ".blend", ".3ds", ".3mf", ".usd", ".usda", ".usdc", ".usdz", ".max", ".ma", ".mb", ".c4d", ".skp"),
    *(".lwo", ".ms3d", ".x3d", ".wrl", ".ctm", ".step", ".stp", ".iges", ".igs", ".las", ".laz", ".e57"),
)
LABELS = "labels.csv"
_COLUMNS = ("path", "category", "name", "group", "split")
_MAYBE_TEXT = (".txt", ".csv", ".asc")
_SPLIT_FOLDERS = ("train", "test")


def list_folder(
    folder: Path,
    *,
    test_fraction: float,
    seed: int,
    train_list: str | None = None,
    test_list: str | None = None,
) -> Listing:
    """Find all shapes of a folder and decide category, group and split of each.

    Args:
        folder: Searched with all sub-folders, hidden ones and a top-level ``lists`` apart.
        test_fraction: Part of the groups per category that goes to test where nothing else says so.
        seed: Of that choice.
        train_list: Text file of relative paths, itself relative to the working directory or else to the folder.
        test_list: The same for the test split.

    Raises:
        DataError: The folder, ``labels.csv`` or a list is missing, empty or contradicts itself.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "there is no such folder"
        raise DataError(f"{folder}: {what}; give the folder that holds your meshes or point clouds")
    lists = [find_list(folder, name) for name in (train_list, test_list) if name]
    shapes, failures, notes = _discover(folder, skip={path.resolve() for path in lists})
    if not shapes:
        raise DataError(_nothing_found(folder, failures, notes))
    objects, more = _with_categories(folder, shapes)
    notes += more
    if train_list or test_list:
        if not (train_list and test_list):
            raise DataError("train_list and test_list belong together; give both or neither")
        objects, more = _apply_lists(objects, lists[0], lists[1])
        notes += more
    objects = split_groups(objects, test_fraction=test_fraction, seed=seed)
    return Listing(objects, failures, notes + split_notes(objects))


def _discover(folder: Path, *, skip: set[Path]) -> tuple[list[str], list[Failure], list[str]]:
    shapes: list[str] = []
    failures: list[Failure] = []
    other: Counter[str] = Counter()
    text = []
    for path in _walk(folder):
        relative, suffix = path.relative_to(folder).as_posix(), path.suffix.lower()
        if relative == LABELS or path.resolve() in skip:
            continue
        readable = suffix in UP_AXES or suffix in CLOUD_SUFFIXES
        if suffix in UNSUPPORTED:
            hint = "convert it to .glb, for example with Blender or assimp"
            failures.append(Failure(_printable(relative), "unsupported", f"{suffix} files are not supported; {hint}"))
        elif readable and (problem := _unusable(path, relative)):
            failures.append(Failure(_printable(relative), "unreadable", problem))
        elif suffix in _MAYBE_TEXT and not _is_numeric_text(path):
            text.append(_printable(relative))
        elif readable:
            shapes.append(relative)
        else:
            other[suffix or "no suffix"] += 1
    notes = []
    if text:
        notes.append(f"Text files without coordinates, ignored: {len(text)}, such as {text[0]}.")
    if other:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in other.most_common(5))
        notes.append(f"Other files, ignored: {other.total()} ({kinds}).")
    if (folder / "lists").is_dir():
        notes.append("The sub-folder lists/ was not searched for shapes.")
    return sorted(shapes), failures, notes


def _unusable(path: Path, relative: str) -> str | None:
    """Say why a file cannot even be opened under its name, None where it can."""
    if not path.is_file():
        return "it is a link to nothing, or a device"
    return None if _printable(relative) == relative else "its name is not UTF-8; rename it"


def _printable(name: str) -> str:
    """Return a name whose bytes that are not UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", errors="replace")


def _walk(folder: Path) -> Iterator[Path]:
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        hidden = real in seen  # a link back to a folder above
        seen.add(real)
        top = Path(parent) == folder
        folders[:] = sorted(
            f for f in folders if not hidden and not f.startswith((".", "__MACOSX")) and not (top and f == "lists")
        )
        if not hidden:
            yield from (Path(parent, file) for file in sorted(files) if not file.startswith("."))


def _is_numeric_text(path: Path) -> bool:
    with path.open("rb") as file:
        return looks_numeric(file.read(4096).decode("utf-8", errors="replace"))


def _nothing_found(folder: Path, failures: list[Failure], notes: list[str]) -> str:
    known = " ".join(sorted({*UP_AXES, *CLOUD_SUFFIXES}))
    found = (
        [f"{len(failures)} files in formats that are not supported, such as {failures[0].path}."] if failures else []
    )
    inside = " ".join(found + notes) or "It is empty."
    return f"{folder}: no shapes in it. {inside} Readable formats: {known}"


def _with_categories(folder: Path, shapes: list[str]) -> tuple[list[SourceObject], list[str]]:
    if (folder / LABELS).is_file():
        return _from_labels(folder, shapes)
    objects = [_from_folders(folder, path) for path in shapes]
    sizes = Counter(o.category for o in objects if o.category is not None)
    if len(sizes) > 1 and max(sizes.values()) == 1:
        note = f"Each of the {len(sizes)} sub-folders holds one object, so they were not taken as categories."
        return [replace(o, category=None) for o in objects], [note]
    return objects, []


def _from_folders(folder: Path, path: str) -> SourceObject:
    """Take the first sub-folder as the category; folders named train and test are splits (as in ModelNet40)."""
    parents = path.split("/")[:-1]
    splits = [p for p in parents if p in _SPLIT_FOLDERS]
    names = [p for p in parents if p not in _SPLIT_FOLDERS]
    stem = path.rsplit(".", 1)[0]
    return SourceObject(
        path=path,
        category=names[0] if names else None,
        name=stem.rsplit("/", 1)[-1],
        group=stem,
        split=splits[0] if splits else "",
        version=_version(folder / path),
    )


def _version(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def _from_labels(folder: Path, shapes: list[str]) -> tuple[list[SourceObject], list[str]]:
    rows = _read_labels(folder)
    listed = set(shapes)
    objects, no_shapes = [], []
    for path, row in rows.items():
        if path in listed:
            base = _from_folders(folder, path)
            objects.append(
                replace(
                    base,
                    category=row.get("category") or None,
                    name=row.get("name") or base.name,
                    group=row.get("group") or base.group,
                    split=row.get("split") or "",
                )
            )
        elif not (folder / path).is_file():
            raise DataError(f"{folder / LABELS}: {path!r} is listed but there is no such file")
        else:
            no_shapes.append(path)
    notes = []
    if no_shapes:
        notes.append(f"Listed in {LABELS}, but no shapes that can be read: {len(no_shapes)}, such as {no_shapes[0]}.")
    if not objects:
        raise DataError(f"{folder / LABELS}: there is nothing to prepare. {notes[0]} List the files that hold shapes")
    if left_out := len(listed - set(rows)):
        notes.append(f"Files that are not in {LABELS}, left out: {left_out}.")
    return objects, notes


def _read_labels(folder: Path) -> dict[str, dict[str, str]]:
    file = folder / LABELS
    rows: dict[str, dict[str, str]] = {}
    with StringIO(_read_text(file), newline="") as stream:
        reader = csv.DictReader(stream, skipinitialspace=True)
        columns = [column.strip() for column in reader.fieldnames or ()]
        unknown = [column for column in columns if column not in _COLUMNS]
        if unknown or columns[:1] != ["path"] or "category" not in columns:
            got = ",".join(columns) or "nothing"
            raise DataError(f"{file}: the first line must be path,category[,name][,group][,split], got {got}")
        reader.fieldnames = columns
        for row in reader:
            clean = {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)}
            where = f"{file}, line {reader.line_num}"
            path = clean["path"].replace("\\", "/").removeprefix("./")
            if not path:
                raise DataError(f"{where}: the path is empty")
            if None in row:
                raise DataError(f"{where}: more values than columns; put names with commas in double quotes")
            if path in rows:
                raise DataError(f"{where}: {path!r} is listed twice")
            if clean.get("split", "") not in ("", *SPLITS):
                raise DataError(f"{where}: unknown split {clean['split']!r}; expected {', '.join(SPLITS)} or nothing")
            rows[path] = clean
    if not rows:
        raise DataError(f"{file}: it lists no file; add a line per object or remove it")
    return rows


def _read_text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: it is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8 (spreadsheets call it "
            "CSV UTF-8), or convert it with iconv"
        ) from error


def find_list(folder: Path, name: str) -> Path:
    """Return a list's file, which is named relative to the working directory or else to the source folder.

    Raises:
        DataError: It is in neither.
    """
    for path in (Path(name).absolute(), folder / name):
        if path.is_file():
            return path
    raise DataError(f"{name}: the list is neither in {Path.cwd()} nor in {folder}; give a path relative to one of them")


def _apply_lists(objects: list[SourceObject], train: Path, test: Path) -> tuple[list[SourceObject], list[str]]:
    splits: dict[str, str] = {}
    known = {o.path for o in objects}
    for split, file in (("train", train), ("test", test)):
        lines = [line.strip().replace("\\", "/").removeprefix("./") for line in _read_text(file).splitlines()]
        paths = [line for line in lines if line and not line.startswith("#")]
        missing = [path for path in paths if path not in known]
        if missing:
            raise DataError(
                f"{file}: {len(missing)} of {len(paths)} listed files are not in the folder, such as {missing[0]!r}; "
                "write paths relative to the folder, with their suffix"
            )
        both = [path for path in paths if splits.get(path, split) != split]
        if both:
            raise DataError(f"{file}: {len(both)} files are in the train and in the test list, such as {both[0]!r}")
        if not paths:
            raise DataError(f"{file}: the list is empty")
        splits |= dict.fromkeys(paths, split)
    kept = [replace(o, split=splits[o.path]) for o in objects if o.path in splits]
    dropped = len(objects) - len(kept)
    notes = [f"Objects in neither list, left out: {dropped}."] if dropped else []
    return kept, notes

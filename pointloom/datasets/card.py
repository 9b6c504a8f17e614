"""What is known of a published data set, and the error for a folder that does not hold it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pointloom.data.sources import SourceObject
from pointloom.errors import DataError


@dataclass(frozen=True)
class Archive:
    """A file that anyone may download.

    Attributes:
        url: Where it is.
        folder: The one folder that it unpacks to.
        size_mb: About how large it is.
        sha256: Of the archive where it is publicly known; else the first download is remembered and compared.
        md5: Of single files inside, publicly known sums: path in ``folder`` to sum.
    """

    url: str
    folder: str
    size_mb: int
    sha256: str | None = None
    md5: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Card:
    """A published data set for people.

    Attributes:
        name: As in ``prepare.source``.
        title: What people call it.
        task: What it is used for.
        size: Objects and disk space, in words.
        licence: Terms of use in a sentence.
        source: Where to get it: addresses.
        trees: Expected files by variant.
        markers: A file or folder of every copy by variant; may be a pattern.
        folders: Usual names of the data set's own folder.
        archives: By variant, what ``pointloom datasets get`` downloads; empty where the owner wants to be asked.
    """

    name: str
    title: str
    task: str
    size: str
    licence: str
    source: str
    trees: dict[str, str]
    markers: dict[str, str]
    folders: tuple[str, ...]
    archives: dict[str, Archive]

    def locate(self, folder: Path, variant: str) -> Path | None:
        """Return the folder that holds a variant: the one given or a usual sub-folder of it, None if it is neither."""
        for candidate in (folder, *(folder / name for name in self.folders)):
            if candidate.is_dir() and next(candidate.glob(self.markers[variant]), None) is not None:
                return candidate
        return None


LoaderTransform = Literal["unit_sphere", "unit_sphere_before_sampling", "none"]


@dataclass(frozen=True)
class Conventions:
    """How the points of a data set are kept, and what its protocols do to them.

    Attributes:
        frame: ``object`` centres and scales (its protocols do so again after sampling), ``source`` turns +Z up only.
        order: ``farthest`` puts farthest points first, ``source`` keeps the order of the file.
        loader_transform: What its protocols do to a cloud: mean to 0 and farthest point to 1 after sampling or
            before it, or nothing.
    """

    frame: Literal["object", "source"]
    order: Literal["farthest", "source"]
    loader_transform: LoaderTransform


@dataclass(frozen=True)
class Found:
    """The objects of a data set in a folder.

    Attributes:
        objects: With category and official split; paths are relative to the folder that was given, objects inside
            a container have ``#`` and their row after it.
        classes: Official class names in label order.
        parts: Part names per class in label order, empty without parts.
        notes: Sentences that a reader of the report should know.
    """

    objects: list[SourceObject]
    classes: tuple[str, ...]
    parts: dict[str, list[str]]
    notes: list[str]


@dataclass(frozen=True)
class Shape:
    """One object as its data set has it.

    Attributes:
        coord: (P, 3) float32.
        normal: (P, 3) float32, None where there is none.
        segment: (P,) uint8 part ids inside the category, None without parts.
    """

    coord: NDArray[np.float32]
    normal: NDArray[np.float32] | None = None
    segment: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class ObjectDataset:
    """A data set of single objects, and how to read it.

    Attributes:
        card: For people.
        variants: Layouts or versions, at least one. One that ends in ``/`` is completed by the user.
        find: Folder and variant to the objects, without loading them.
        load: Folder and object to its points.
        up: Up axis of the files.
        conventions: Of its protocols.
        verbatim: Variants whose protocols take the first points of the file as they are.
        whole_file: Variants whose objects all lie in one file that must be read at once, so by one process.
    """

    card: Card
    variants: tuple[str, ...]
    find: Callable[[Path, str], Found]
    load: Callable[[Path, SourceObject], Shape]
    up: Literal["x", "y", "z"]
    conventions: Conventions
    verbatim: tuple[str, ...] = ()
    whole_file: tuple[str, ...] = ()

    def conventions_of(self, variant: str) -> Conventions:
        """Return the conventions of a variant."""
        return Conventions("source", "source", "none") if variant in self.verbatim else self.conventions


def find_root(card: Card, folder: Path, variant: str) -> Path:
    """Return the folder that holds a variant: the one given or a usual sub-folder of it.

    Raises:
        DataError: It is nowhere; the message shows the expected tree, the source and the licence.
    """
    root = card.locate(folder, variant)
    if root is None:
        raise wrong_folder(card, folder, variant, f"{card.markers[variant]} is not in it")
    return root


def wrong_folder(card: Card, folder: Path, variant: str, what: str) -> DataError:
    """Return the error for a folder that does not hold the data set."""
    if not folder.is_dir():
        what = "it is a file, not a folder" if folder.exists() else "there is no such folder"
    archive = card.archives.get(variant)
    get = f"\n  or:      pointloom datasets get {card.name} --variant {variant} DIR" if archive else ""
    tree = "\n".join(f"    {line}" for line in card.trees[variant].splitlines())
    return DataError(
        f"{folder}: this is not {card.title} ({variant}): {what}. Expected:\n{tree}\n"
        f"  get it:  {card.source}{get}\n  licence: {card.licence}"
    )


def check_files(card: Card, folder: Path, variant: str, paths: list[Path]) -> None:
    """Check that all files of a list exist.

    Raises:
        DataError: Some do not.
    """
    missing = [path for path in paths if not path.is_file()]
    if missing:
        what = f"{len(missing)} of its {len(paths)} listed files are missing, such as {missing[0]}"
        raise wrong_folder(card, folder, variant, what)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty, without surrounding blanks."""
    return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def version(path: Path) -> str:
    """Return what changes when a file is edited."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"

"""What is to be prepared: a listing of objects with categories, groups and splits, before anything is loaded."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pointloom.data.records import Failure


@dataclass(frozen=True)
class SourceObject:
    """One object to prepare.

    Attributes:
        path: Relative to the source folder with forward slashes, or ``synthetic/<number>``.
        category: Class name, None where unknown.
        name: Short name for people.
        group: Variants of one object share it.
        split: ``train``, ``test``, ``pretrain``, or empty while it is not decided.
        synthetic_index: Number of a generated object, None for a file.
        version: Size and time of the file, so that an edited file is prepared again.
    """

    path: str
    category: str | None
    name: str
    group: str
    split: str = ""
    synthetic_index: int | None = None
    version: str = ""

    @property
    def uid(self) -> str:
        """A unique name that is safe as a file name: a readable part and ten digits of the path's hash."""
        if self.synthetic_index is not None:
            return self.path.replace("/", "-")
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", self.path.rsplit("/", 1)[-1].rsplit(".", 1)[0])[:48]
        return f"{readable}-{hashlib.sha256(self.path.encode()).hexdigest()[:10]}"


@dataclass(frozen=True)
class Listing:
    """What was found in a source.

    Attributes:
        objects: In a fixed order.
        failures: Inputs that cannot be read for a reason known beforehand.
        notes: Sentences that a reader of the report should know.
    """

    objects: list[SourceObject]
    failures: list[Failure]
    notes: list[str]


def split_groups(objects: Iterable[SourceObject], *, test_fraction: float, seed: int) -> list[SourceObject]:
    """Give every undecided object a split, category by category and never through a group.

    The choice depends on the seed and the names of the groups only, so that adding objects moves few others. A
    category with one group stays in train; one with more has at least one group on each side.

    Args:
        objects: Those with a split keep it, and take the undecided rest of their group with them.
        test_fraction: Part of the groups of each category that goes to test; 0 means none.
        seed: Another seed, another split.
    """
    listed = list(objects)
    decided = {o.group: o.split for o in listed if o.split}
    by_category: dict[str, set[str]] = defaultdict(set)
    for o in listed:
        if o.group not in decided:
            by_category[o.category or ""].add(o.group)
    for category in sorted(by_category):
        groups = sorted(g for g in by_category[category] if g not in decided)
        groups.sort(key=lambda g: hashlib.sha256(f"{seed}:{g}".encode()).hexdigest())
        num_test = 0
        if len(groups) > 1 and test_fraction > 0:
            num_test = min(max(round(len(groups) * test_fraction), 1), len(groups) - 1)
        decided |= {g: "test" if i < num_test else "train" for i, g in enumerate(groups)}
    return [o if o.split else replace(o, split=decided[o.group]) for o in listed]


def list_synthetic(num_objects: int, *, seed: int, unlabelled: int, test_fraction: float) -> list[SourceObject]:
    """List generated objects: ``num_objects`` labelled ones, then ``unlabelled`` others for pre-training only."""
    from pointloom.data.synthetic import CATEGORIES

    names = list(CATEGORIES)
    objects = []
    for i in range(num_objects + unlabelled):
        category = names[i % len(names)]
        labelled = i < num_objects
        path = f"synthetic/{category if labelled else 'unlabelled'}-{seed}-{i:06d}"
        split = "" if labelled else "pretrain"
        objects.append(
            SourceObject(
                path=path,
                category=category if labelled else None,
                name=category,
                group=path,
                split=split,
                synthetic_index=i,
            )
        )
    return split_groups(objects, test_fraction=test_fraction, seed=seed)


def split_notes(objects: Iterable[SourceObject]) -> list[str]:
    """Say what is unusual about categories and splits."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: {"train": 0, "test": 0, "pretrain": 0})
    unlabelled = 0
    for o in objects:
        if o.split == "pretrain":
            continue
        if o.category is None:
            unlabelled += 1
        else:
            counts[o.category][o.split] += 1
    notes = []
    no_test = sorted(c for c, n in counts.items() if n["test"] == 0)
    no_train = sorted(c for c, n in counts.items() if n["train"] == 0)
    if no_test:
        notes.append(f"Categories without a test object ({len(no_test)}): {_some(no_test)}.")
    if no_train:
        notes.append(f"Categories with test objects only, which cannot be learnt ({len(no_train)}): {_some(no_train)}.")
    if not counts:
        notes.append("No object has a category: everything that needs labels is skipped.")
    elif len(counts) == 1:
        notes.append(f"There is one category only ({next(iter(counts))}): nothing can be classified.")
    if counts and unlabelled:
        notes.append(f"Objects without a category, used without a label: {unlabelled}.")
    return notes


def quarantine_notes(listed: Iterable[SourceObject], kept: Iterable[SourceObject]) -> list[str]:
    """Say what leaving objects out has changed about categories and splits."""
    listed, kept = list(listed), list(kept)
    lost = sorted({o.category for o in listed if o.category} - {o.category for o in kept})
    notes = [f"Categories none of whose objects can be used ({len(lost)}): {_some(lost)}."] if lost else []
    known = split_notes(listed)
    return notes + [f"Without what was left out: {note}" for note in split_notes(kept) if note not in known]


def _some(names: list[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")

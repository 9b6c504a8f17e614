"""Why an input can be left out: one short word per reason, the same words in ``failures.jsonl`` and the manual."""

from pointloom.errors import DataError

REASONS = {
    "unreadable": "the file is damaged, is not what its name says, or a part of it cannot be decoded",
    "missing_file": "a file that this one refers to and cannot do without (a glTF buffer) is not there",
    "unsupported": "a 3D format that pointloom does not read",
    "empty": "there are no faces and no points",
    "not_finite": "a coordinate is NaN or infinite",
    "zero_extent": "all points are in one place, or the surface has no area",
    "too_large": "the file is larger than max_file_mb",
    "timeout": "loading took longer than timeout_s",
    "memory": "loading took more memory than max_memory_gb",
    "changed": "the source file is not the one that was prepared, or is gone",
    "nothing_visible": "no view shows the object: all are empty or of one colour",
    "crashed": "the loader ended the worker process",
    "wrong_labels": "labels, instances or boxes do not fit the points or the classes",
    "wrong_units": "a scan is larger than 200 m, so probably not in metres",
    "wrong_colors": "colours of a scan go from 0 to 1, in a layout that has 0 to 255",
}


class RejectedError(DataError):
    """One input cannot be used; the run goes on without it.

    Attributes:
        reason: A key of ``REASONS``.
        detail: A sentence for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        if reason not in REASONS:
            raise ValueError(f"unknown reason {reason!r}; known: {', '.join(REASONS)}")
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"

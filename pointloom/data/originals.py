"""The shapes behind a prepared store: what `prepare` read or generated, loaded again."""

import hashlib
from pathlib import Path

from pointloom.data.clouds import CLOUD_SUFFIXES, Cloud, load_cloud
from pointloom.data.intake import generated_digest, generated_surface
from pointloom.data.quarantine import RejectedError
from pointloom.data.surfaces import Surface, load_surface


def is_generated(*, uid: str, path: str) -> bool:
    """Tell whether a stored object was generated; uids of files end in a hash of their path instead."""
    return path.startswith("synthetic/") and uid == path.replace("/", "-")


def load_original(folder: Path, *, uid: str, path: str, sha256: str) -> Surface | Cloud:
    """Load or generate the shape of a stored object again, in the coordinates of its source.

    Args:
        folder: Source folder of the store.
        uid: Of the object in the store.
        path: Likewise.
        sha256: Likewise; the shape must still have it, because the stored transform fits no other.

    Raises:
        RejectedError: The shape is another one now, or cannot be loaded.
    """
    if is_generated(uid=uid, path=path):
        return _generate_again(path, sha256)
    file = folder / path
    if not file.is_file():
        raise RejectedError("changed", f"{file} is not there any more; run `pointloom prepare` again")
    if hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
        raise RejectedError("changed", f"{file} was edited after it was prepared; run `pointloom prepare` again")
    return load_cloud(file) if file.suffix.lower() in CLOUD_SUFFIXES else load_surface(file, root=folder)


def _generate_again(path: str, sha256: str) -> Surface:
    from pointloom.data.synthetic import generate_object

    seed, index = path.rsplit("-", 2)[1:]
    made = generate_object(int(index), seed=int(seed))
    if generated_digest(made) != sha256:
        raise RejectedError("changed", "this version generates another object; run `pointloom prepare` again")
    return generated_surface(made)

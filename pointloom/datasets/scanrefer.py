"""ScanRefer: sentences that refer to objects of ScanNet."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from pointloom.data.scenes import Sentence
from pointloom.datasets.scannet_labels import NYU40, STUFF
from pointloom.datasets.scene_sets import read_json
from pointloom.errors import DataError

_OTHER = NYU40["otherfurniture"]
_VALID = {number for name, number in NYU40.items() if name not in STUFF}


def read_sentences(files: Sequence[Path], nyu40: Mapping[str, int]) -> dict[str, tuple[Sentence, ...]]:
    """Read sentences by scene.

    A sentence is unique when its file describes no other object of the same class in that scene; classes are the 18
    of detection, and every other word counts as ``otherfurniture``. Objects nobody described do not count.

    Args:
        files: ``ScanRefer_filtered_train.json`` and so on, each counted for itself.
        nyu40: Annotators' words to NYU's 40 classes.

    Raises:
        DataError: A file is missing or damaged.
    """
    found: dict[str, list[Sentence]] = defaultdict(list)
    for path in files:
        rows = _rows(path)
        kinds = [_kind(name, nyu40) for _, _, name, _ in rows]
        objects: dict[tuple[str, int], set[int]] = defaultdict(set)
        for (scene, instance, _, _), kind in zip(rows, kinds, strict=True):
            objects[scene, kind].add(instance)
        for (scene, instance, _, text), kind in zip(rows, kinds, strict=True):
            found[scene].append(Sentence(text=text, instance=instance, unique=len(objects[scene, kind]) == 1))
    return {scene: tuple(sentences) for scene, sentences in found.items()}


def _kind(name: str, nyu40: Mapping[str, int]) -> int:
    number = nyu40.get(name.replace("_", " "), _OTHER)
    return number if number in _VALID else _OTHER


def _rows(path: Path) -> list[tuple[str, int, str, str]]:
    content = read_json(path)
    try:
        return [(r["scene_id"], int(r["object_id"]), r["object_name"], r["description"]) for r in content]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: expected a list with scene_id, object_id, object_name and description ({error}); get ScanRefer's "
            "files again"
        ) from error

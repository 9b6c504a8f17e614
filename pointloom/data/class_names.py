"""Class names as people say them."""

import re
from collections.abc import Sequence

from pointloom.data.shards import ObjectStore


def class_phrases(store: ObjectStore) -> dict[str, str]:
    """Return every category of a store as words: ``night_stand`` is a night stand, ``desk_table`` a desk or table.

    A name of several words either is one thing or lists several. Which one it is, is read from the file names of the
    training objects: where each of the words occurs without the others, as in ``desk_01`` and ``round_table``, the name
    is a list.
    """
    names: dict[str, list[str]] = {str(category): [] for category in store.categories if category}
    for row in store.rows("train"):
        if category := str(store.categories[row]):
            names[category].append(str(store.names[row]).lower())
    return {category: _phrase(category, found) for category, found in names.items()}


def _phrase(category: str, names: Sequence[str]) -> str:
    words = re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", category).lower()) or [category]
    alone = [any(word in name and not any(w in name for w in words if w != word) for name in names) for word in words]
    return " or ".join(words) if len(words) > 1 and all(alone) else " ".join(words)

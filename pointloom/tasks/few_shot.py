"""Few-shot folds: a few classes, a few training objects of each, and others of the same classes to classify."""

import numpy as np
from numpy.typing import NDArray


def draw_fold(
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    way: int,
    shot: int,
    query: int,
    fold: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw a fold: the same one for every encoder, another one for every number.

    Args:
        train: Rows to learn from.
        test: Rows to classify.
        labels: Class of every row of the store, -1 where unknown.
        way: Number of classes, drawn among those with enough objects.
        shot: Training objects per class.
        query: Test objects per class, 20 in the community's folds.
        fold: Number of the fold.

    Returns:
        Training rows (way * shot,) and test rows (way * query,).

    Raises:
        ValueError: Too few classes have enough objects.
    """
    eligible = [
        label
        for label in np.unique(labels[labels >= 0])
        if (labels[train] == label).sum() >= shot and (labels[test] == label).sum() >= query
    ]
    if len(eligible) < way:
        raise ValueError(
            f"{len(eligible)} classes have {shot} training and {query} test objects, {way} are needed: "
            "lower way, shot or query"
        )
    rng = np.random.default_rng([fold, way, shot])
    chosen = rng.choice(eligible, way, replace=False)
    return (
        np.concatenate([rng.choice(train[labels[train] == label], shot, replace=False) for label in chosen]),
        np.concatenate([rng.choice(test[labels[test] == label], query, replace=False) for label in chosen]),
    )

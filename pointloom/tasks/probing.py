"""Protocols on frozen features: linear SVM, linear layer, three-layer MLP, few-shot episodes."""

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from pointloom.models.heads import HEADS


@dataclass(frozen=True)
class Split:
    """Frozen features cut into what may be learned from and what is tested.

    Attributes:
        train: (a, d) features.
        train_label: (a,) classes.
        train_group: (a,) names; objects of one group never stand on both sides of a validation fold.
        test: (t, d) features.
        test_label: (t,) classes.
    """

    train: NDArray[np.float32]
    train_label: NDArray[np.int64]
    train_group: NDArray[Any]
    test: NDArray[np.float32]
    test_label: NDArray[np.int64]


def linear_svm(
    split: Split, *, grid: list[float], folds: int, seed: int, num_workers: int
) -> tuple[NDArray[np.int64], float]:
    """Fit a one-against-rest linear SVM on standardised features; return test predictions and the chosen C.

    C is chosen by cross-validation on the training features alone, group by group, so that variants of one model never
    stand on both sides. A single value in ``grid`` is used as it is (the papers' fixed C), and so is the middle one
    where no class has two objects in different groups: there is nothing to validate with.

    Args:
        split: Features.
        grid: Values of C to choose from.
        folds: Number of validation folds, fewer where all classes are smaller.
        seed: Seeds folds and solver.
        num_workers: Processes for the search.
    """
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    pipeline = make_pipeline(StandardScaler(), LinearSVC(dual=False, random_state=seed))
    pairs = {(label, group) for label, group in zip(split.train_label.tolist(), split.train_group, strict=True)}
    folds = min(folds, max(Counter(label for label, _ in pairs).values()))
    if len(grid) == 1 or folds < 2:
        chosen = grid[len(grid) // 2]
        pipeline.set_params(linearsvc__C=chosen).fit(split.train, split.train_label)
        return pipeline.predict(split.test), chosen
    search = GridSearchCV(
        pipeline,
        {"linearsvc__C": grid[::-1]},  # large values take longest, and no process should begin with one when others end
        cv=StratifiedGroupKFold(folds, shuffle=True, random_state=seed),
        refit=_first_of_the_best,
        n_jobs=num_workers,
    )
    with warnings.catch_warnings():
        # classes with fewer objects than folds are in some folds only, which is all that can be done
        warnings.filterwarnings("ignore", message="The least populated class in y")
        search.fit(split.train, split.train_label, groups=split.train_group)
    return search.predict(split.test), float(search.best_params_["linearsvc__C"])


def _first_of_the_best(found: Mapping[str, NDArray[Any]]) -> int:
    """Return which of the values, searched from the last to the first, is the first of those with the best score."""
    return int(np.flatnonzero(found["rank_test_score"] == 1)[-1])


def official_svm(split: Split, *, C: float) -> NDArray[np.int64]:
    """Fit the papers' linear SVM (libsvm, one against one) on features as they are; return test predictions.

    Point-M2AE's code uses C 0.01 while it pre-trains, 0.012 on ModelNet40 and 0.042 on ScanObjectNN OBJ-BG. A fixed C
    on features that are not standardised favours encoders whose features happen to have a fitting scale.
    """
    from sklearn.svm import SVC

    prediction: NDArray[np.int64] = SVC(C=C, kernel="linear").fit(split.train, split.train_label).predict(split.test)
    return prediction


def trained_head(split: Split, *, head: str, num_classes: int, epochs: int, lr: float, seed: int) -> NDArray[np.int64]:
    """Train a head on standardised frozen features (batches of 128, AdamW, cosine); return test predictions."""
    torch.manual_seed(seed)
    mean, std = split.train.mean(0), split.train.std(0) + 1e-6
    train = torch.from_numpy((split.train - mean) / std)
    label = torch.from_numpy(split.train_label)
    module = HEADS[head](train.shape[1], num_classes=num_classes)
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=0.05)
    size = min(128, len(train))
    steps = epochs * (len(train) // size)
    rise = 0.1 if steps != 10 else 0.2  # torch divides by the number of steps of the rise less one
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=rise)
    for _ in range(epochs):
        order = torch.randperm(len(train))
        for start in range(0, len(train) - size + 1, size):
            chosen = order[start : start + size]
            loss = F.cross_entropy(module(train[chosen]), label[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    module.eval()
    with torch.inference_mode():
        logits = module(torch.from_numpy((split.test - mean) / std))
    return logits.argmax(-1).numpy()


def few_shot_classes(
    train_label: NDArray[np.int64], test_label: NDArray[np.int64], *, shot: int, query: int
) -> list[int]:
    """Return the classes with at least ``shot`` training and ``query`` test objects; -1 is no class."""
    learnt, tested = Counter(train_label.tolist()), Counter(test_label.tolist())
    return sorted(label for label in learnt if label >= 0 and learnt[label] >= shot and tested[label] >= query)


def few_shot_accuracy(split: Split, *, way: int, shot: int, query: int, C: float, seed: int) -> float | None:
    """Return the accuracy in percent of one episode, None where too few classes have enough objects.

    ``way`` classes are drawn among those with at least ``shot`` training and ``query`` test objects; a linear SVM
    learns from ``shot`` training objects of each and is tested on ``query`` test objects of each.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    eligible = few_shot_classes(split.train_label, split.test_label, shot=shot, query=query)
    if len(eligible) < way:
        return None
    rng = np.random.default_rng(seed)
    support, queries = [], []
    for label in rng.choice(eligible, way, replace=False):
        support.append(rng.choice(np.flatnonzero(split.train_label == label), shot, replace=False))
        queries.append(rng.choice(np.flatnonzero(split.test_label == label), query, replace=False))
    learn, test = np.concatenate(support), np.concatenate(queries)
    pipeline = make_pipeline(StandardScaler(), LinearSVC(C=C, dual=False, random_state=seed))
    pipeline.fit(split.train[learn], split.train_label[learn])
    return 100.0 * float((pipeline.predict(split.test[test]) == split.test_label[test]).mean())

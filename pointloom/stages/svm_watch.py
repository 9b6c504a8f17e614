"""The linear SVM that Point-M2AE's code fits after every epoch of pre-training, to be looked at."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.pretrain_methods.base import LearningParams
    from pointloom.structures import Encoder

C = 0.01
"""As in the official code while it pre-trains."""

COLUMN = "svm_oa"


def svm_watch(encoder: "Encoder", store: "ObjectStore", params: "LearningParams") -> Callable[[dict[str, float]], None]:
    """Return what adds the accuracy of a linear SVM on frozen features, ``svm_oa`` in percent, to rows of the curve.

    Training does not notice: random numbers and the mode of every layer are as before.

    Args:
        encoder: What is being pre-trained.
        store: Its labelled training objects are learned from, its labelled test objects are tested.
        params: After how many epochs; the last one always counts.

    Raises:
        ParamsError: There are no labelled objects of both splits.
    """
    import numpy as np

    from pointloom.errors import ParamsError
    from pointloom.stages.frozen_features import labelled_split

    if labelled_split(store, np.zeros((len(store), 1), dtype=np.float32)) is None:
        raise ParamsError(
            f"svm_every: {store.path} needs labelled training and test objects of two classes; set it to 0"
        )

    def watch(row: dict[str, float]) -> None:
        epoch = int(row["epoch"])
        if COLUMN not in row and (epoch % params.svm_every == 0 or epoch == params.epochs):
            row[COLUMN] = _accuracy(encoder, store, params)

    return watch


def _accuracy(encoder: "Encoder", store: "ObjectStore", params: "LearningParams") -> float:
    import torch

    from pointloom.stages.frozen_features import frozen_features, labelled_split
    from pointloom.structures import as_module
    from pointloom.tasks.probing import official_svm
    from pointloom.train.device import best_device

    modes = {module: module.training for module in as_module(encoder).modules()}
    device = best_device()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        feature = frozen_features(
            encoder, store, sampling=params.sampling, draws=1, precision=params.optim.precision, seed=params.seed,
            label=None,
        )  # fmt: skip
    for module, training in modes.items():
        module.training = training
    split = labelled_split(store, feature)
    assert split is not None
    return 100 * float((official_svm(split, C=C) == split.test_label).mean())

"""Features of prepared objects from an encoder that does not learn."""

from typing import TYPE_CHECKING

from pointloom.stages.enough_points import check_enough_points
from pointloom.stages.params import SamplingParams
from pointloom.stages.training import as_sampling, can_classify

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.data.shards import ObjectStore
    from pointloom.structures import Encoder
    from pointloom.tasks.probing import Split

CLOUDS_AT_ONCE = 64


def frozen_features(
    module: "Encoder",
    store: "ObjectStore",
    *,
    sampling: SamplingParams,
    draws: int,
    precision: str,
    seed: int,
    label: str | None,
) -> "NDArray[np.float32]":
    """Return (all objects, d) features, averaged over draws of the points; the encoder is left in evaluation mode.

    Args:
        module: The encoder.
        store: Prepared objects.
        sampling: Which points it sees.
        draws: Random draws of the points.
        precision: ``bf16`` or ``fp32``.
        seed: Of the draws.
        label: Text in front of the progress bar, None for none.

    Raises:
        ParamsError: The encoder has more patches than clouds have points.
    """
    import numpy as np
    import torch
    from tqdm import tqdm

    from pointloom.data.objects import ObjectLoader
    from pointloom.structures import as_module
    from pointloom.train.allocator import keep_freed_memory
    from pointloom.train.device import best_device

    check_enough_points(module, sampling.num_points, where="frozen features")
    keep_freed_memory()
    device = best_device()
    as_module(module).to(device).eval()
    rows = np.arange(len(store))
    loader = ObjectLoader(store, rows, sampling=as_sampling(sampling), batch_size=CLOUDS_AT_ONCE, seed=seed)
    total = torch.zeros(len(rows), module.global_dim)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
        tqdm(total=len(rows) * draws, desc=label, unit="cloud", disable=label is None) as bar,
    ):
        for draw in range(draws):
            for batch in loader.draw(1 + draw):
                pooled = module.pool(module(module.group(batch.coord.to(device))))
                total[batch.row] += pooled.float().cpu() / draws
                bar.update(len(pooled))
    return total.numpy()


def labelled_split(store: "ObjectStore", feature: "NDArray[np.float32]") -> "Split | None":
    """Return features of the labelled training and test objects; None without both, or a second class to learn.

    Args:
        store: Prepared objects.
        feature: (all objects, d).
    """
    from pointloom.tasks.probing import Split

    if not can_classify(store, "probes"):
        return None
    train, test = (store.rows(split) for split in ("train", "test"))
    train, test = train[store.labels[train] >= 0], test[store.labels[test] >= 0]
    return Split(
        train=feature[train],
        train_label=store.labels[train],
        train_group=store.groups[train],
        test=feature[test],
        test_label=store.labels[test],
    )

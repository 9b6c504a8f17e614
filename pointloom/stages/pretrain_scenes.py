"""Stage ``pretrain`` on scenes: learn a scene encoder without labels."""

from pathlib import Path
from typing import TYPE_CHECKING

from pointloom.stages.pretrain_methods import SCENE_BUILDERS, SCENE_LOADERS, SceneLearningParams
from pointloom.stages.scene_training import as_scene_sampling, check_lone_scene
from pointloom.stages.training import as_optimization, trained, write_curve

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.data.scene_store import SceneStore
    from pointloom.stages.runs import StageRun
    from pointloom.structures import SceneMethod
    from pointloom.train.loop import Loader

NUM_SAMPLES = 2


def learn_scenes(params: SceneLearningParams, dataset: Path, folder: Path, *, state: Path, run: "StageRun") -> None:
    """Train the method of ``params`` and write encoder, loss curve and a few looked-at scenes into ``folder``.

    Raises:
        DataError: There are no prepared scenes.
        ParamsError: Values do not fit each other.
    """
    import numpy as np

    from pointloom.data.scene_store import SceneStore
    from pointloom.structures import as_module
    from pointloom.train.checkpoint import save_encoder

    store = SceneStore(dataset)
    rows = np.concatenate([store.rows(split) for split in params.splits])
    loader = _loader(params, store, np.tile(rows, params.repeats))
    method = _build(params, num_steps=params.epochs * len(loader))
    batch_size, share = min(params.batch_size, len(rows) * params.repeats), getattr(params, "keep_min", 1.0)
    check_lone_scene(method.encoder, store, rows, params.sampling, batch_size=batch_size, where="pretrain", share=share)
    settings = params.model_dump(mode="json")
    with trained(
        as_module(method),
        loader,
        stage="pretrain",
        label=f"pretrain {params.method}",
        optimization=as_optimization(params.optim, epochs=params.epochs),
        seed=params.seed,
        shaped_by={"params": settings, "data": store.info.digest},
        state=state,
        run=run,
    ) as curve:
        write_curve(folder / "curves.csv", curve)
        save_encoder(
            folder,
            as_module(method.encoder),
            builder=params.encoder,
            builder_args=params.encoder_args,
            method=params.method,
            labels="none",
            num_points=params.sampling.max_points or int(store.num_points.max()),
            data_digest=store.info.digest,
            params=settings,
        )
        _write_samples(folder / "scene_samples.npz", method, store, params)
    run.summary({"loss": curve[-1]["loss"], "epochs": params.epochs, "scenes": len(rows)})


def _loader(params: SceneLearningParams, store: "SceneStore", rows: "NDArray[np.int64]") -> "Loader":
    from pointloom.data.scene_batches import SceneLoader

    make = SCENE_LOADERS.get(params.method)
    if make is not None:
        return make(params, store, rows)
    sampling = as_scene_sampling(params.sampling)
    return SceneLoader(store, rows, sampling=sampling, batch_size=params.batch_size, seed=params.seed)


def _build(params: SceneLearningParams, *, num_steps: int) -> "SceneMethod":
    """Build the method with fresh weights.

    Raises:
        ParamsError: Values do not fit each other.
    """
    import torch

    from pointloom.errors import ParamsError

    torch.manual_seed(params.seed)
    try:
        return SCENE_BUILDERS[params.method](params, num_steps)
    except ValueError as error:
        raise ParamsError(f"pretrain: {error}") from error


def _write_samples(path: Path, method: "SceneMethod", store: "SceneStore", params: SceneLearningParams) -> None:
    """Look at a few test scenes, at scenes that were trained on where there are none."""
    import numpy as np
    import torch

    from pointloom.data.scene_batches import SceneLoader
    from pointloom.structures import as_module
    from pointloom.train.device import best_device

    rows = next(found for split in ("test", *params.splits) if len(found := store.rows(split)))
    chosen = rows[np.linspace(0, len(rows) - 1, min(NUM_SAMPLES, len(rows))).astype(np.int64)]
    sampling = as_scene_sampling(params.sampling)
    batches = list(SceneLoader(store, chosen, sampling=sampling, batch_size=1, seed=0).draw(0))
    torch.manual_seed(0)
    as_module(method).eval()
    looked = [method.look(batch.to(best_device())) for batch in batches]
    arrays = {key: torch.cat([each[key].cpu() for each in looked]).numpy() for key in looked[0]}
    if "reconstruction" in arrays:
        arrays["reconstruction_offset"] = np.cumsum([len(each["reconstruction"]) for each in looked])
    color = torch.cat([batch.color for batch in batches])
    arrays |= {
        "name": store.names[chosen],
        "coord": torch.cat([batch.coord for batch in batches]).numpy(),
        "color": (color * 255).round().to(torch.uint8).numpy(),
        "offset": np.cumsum([len(batch.coord) for batch in batches]),
    }
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]

"""The loader of methods that compare two views of every scene."""

from typing import TYPE_CHECKING

from pointloom.stages.pretrain_methods.scene_base import SceneLearningParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.data.scene_loading import SceneSource
    from pointloom.data.scene_views import SceneViewsLoader


def load_views(params: SceneLearningParams, store: "SceneSource", rows: "NDArray[np.int64]") -> "SceneViewsLoader":
    """Return pairs of views of the scenes of some rows."""
    from pointloom.data.scene_views import SceneViewsLoader
    from pointloom.stages.scene_training import as_scene_sampling

    sampling = as_scene_sampling(params.sampling)
    return SceneViewsLoader(store, rows, sampling=sampling, batch_size=params.batch_size, seed=params.seed)

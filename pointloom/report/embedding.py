"""Two-dimensional map of the test objects (t-SNE), seeded."""

import numpy as np
from jaxtyping import Float

from pointloom.report.retrieval import Gallery

PERPLEXITY = 30.0


def embed(gallery: Gallery, *, seed: int) -> Float[np.ndarray, "t 2"]:
    """Return t-SNE positions of the objects, from at most 50 principal components of their features."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    count, dim = gallery.feature.shape
    compact = PCA(n_components=min(50, dim, count), random_state=seed).fit_transform(gallery.feature)
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    model = TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=seed, max_iter=750)
    with threadpool_limits(1):  # many threads on so few points only wait for each other, ten times longer
        return np.asarray(model.fit_transform(compact), dtype=np.float64)

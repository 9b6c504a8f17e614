"""Parts of points in ShapeNetPart's official layout are those of the official numbering."""

from pathlib import Path

import numpy as np

from pointloom.data.part_clouds import PartLoader, PartSampling, part_counts
from pointloom.data.shards import ObjectStore
from pointloom.stages.prepare import PrepareParams, prepare_store


def test_drawn_points_have_the_official_number_of_their_part(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "derived" / "partseg_lowpoly"
    params = PrepareParams(
        source="shapenetpart", variant="trainval", num_objects=0, unlabelled_synthetic=0, num_points=2048, seed=0,
        test_fraction=0.0, up="auto", max_failure_ratio=0.0, num_workers=1,
    )  # fmt: skip
    prepare_store(params, source=source, dataset=tmp_path / "store", state=tmp_path / "state")
    store = ObjectStore(tmp_path / "store")
    assert part_counts(store) == [5, 2, 2, 2, 2, 2]
    sampling = PartSampling(num_points=256, replacement=True, scale=(1.0, 1.0), shift=0.0)
    rows = store.rows("test")
    (batch,) = PartLoader(store, rows, sampling=sampling, batch_size=len(rows), seed=0).draw(1)
    for coord, segment, row in zip(batch.coord.numpy(), batch.segment.numpy(), rows, strict=True):
        raw = np.loadtxt(source / store.paths[row])
        upright = raw[:, [0, 2, 1]] * [1, -1, 1]  # files are y-up
        whole = upright - upright.mean(0)
        whole /= np.linalg.norm(whole, axis=1).max()
        distance = np.linalg.norm(coord[:, None] - whole, axis=-1)
        assert distance.min(1).max() < 1e-4
        assert np.array_equal(segment, raw[distance.argmin(1), 6])

"""An ablation table on rooms from one command: one pre-training, a probe per row, mean IoU beside random weights."""

import json
from pathlib import Path

import pytest

from tests.e2e.processes import pointloom
from tests.e2e.stories import executed

pytestmark = pytest.mark.slow

ROWS = [f"{kind}_{level}" for level in (1, 2, 3, 4) for kind in ("alone", "without")]


def test_every_resolution_is_probed_alone_and_left_out_on_one_encoder(tmp_path: Path) -> None:
    done = pointloom(
        "ablate", "msm-table11", "--profile", "smoke", "--seeds", "1", "--workspace", str(tmp_path / "ws"),
        cwd=tmp_path, seconds=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    probes = [f"probe@{name}" for name in (*(f"{row}_s0" for row in ROWS), "full_s0", "random")]
    assert executed(done) == ["prepare", "pretrain@scratch", "pretrain@full_s0", *probes, "report"]
    table = json.loads((tmp_path / "ws" / "report" / "report.json").read_text())["ablation"]
    assert [row["cells"] for row in table["rows"][:2]] == [["1", "alone"], ["1", "removed"]]
    for row in table["rows"]:
        for measure in ("linear", "nearest"):
            assert row["ours"][measure]["score"]["count"] == 1
            assert (row["ours"][measure]["difference"] is None) == row["is_full"]
    assert "here, nearest super-point, mIoU" in done.stdout

"""An ablation table from one command: every row and seed pre-trained, measured and printed, and nothing twice."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.e2e.processes import pointloom

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Story:
    """Two runs of the command in one workspace."""

    workspace: Path
    first: CompletedProcess[str]
    again: CompletedProcess[str]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    base = tmp_path_factory.mktemp("ablation")
    arguments = ["ablate", "m2ae-table11", "--profile", "smoke", "--seeds", "2", "--workspace", str(base / "ws")]
    first = pointloom(*arguments, cwd=base)
    return Story(base / "ws", first, pointloom(*arguments, cwd=base))


def executed(done: CompletedProcess[str]) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", done.stdout + done.stderr)


def test_every_row_and_seed_is_pretrained_and_probed(story: Story) -> None:
    assert story.first.returncode == 0, story.first.stdout + story.first.stderr
    rows = [f"{row}_s{seed}" for seed in (0, 1) for row in ("full", "two_scales", "four_scales", "three_decoded")]
    assert executed(story.first) == [
        *("prepare", "pretrain@scratch", *(f"pretrain@{name}" for name in rows)),
        *(*(f"probe@{name}" for name in rows), "probe@random", "report"),
    ]


def test_printed_table_has_published_and_measured_values_of_every_row(story: Story) -> None:
    content = json.loads((story.workspace / "report" / "report.json").read_text())["ablation"]
    full, two, four, three, untrained = content["rows"]
    assert full["ours"]["svm"]["score"]["count"] == three["ours"]["svm"]["score"]["count"] == 2
    assert three["ours"]["svm"]["difference"]["seeds"] == untrained["ours"]["svm"]["difference"]["seeds"] == 2
    assert two["ours"]["svm"]["score"]["count"] == four["ours"]["svm"]["score"]["count"] == 2
    table = story.first.stdout[story.first.stdout.index("Encoder  ") :].splitlines()
    assert re.match(r"3 +2 +92\.9 +\d+\.\d ± \d+\.\d", table[1])
    assert re.match(r"2 +1 +91\.8 \(−1\.1\) +\d+\.\d ± \d+\.\d +[+−0]", table[2])
    assert re.match(r"3 +3 +90\.7 \(−2\.2\) +\d+\.\d ± \d+\.\d +[+−0]", table[4])
    assert table[-1] == f"Report: {story.workspace / 'report' / 'report.html'}"


def test_seeds_differ(story: Story) -> None:
    cards = [json.loads((story.workspace / "models" / f"full_s{i}" / "encoder.json").read_text()) for i in (0, 1)]
    assert cards[0]["weights_sha256"] != cards[1]["weights_sha256"]


def test_second_time_runs_nothing_and_prints_the_same(story: Story) -> None:
    assert story.again.returncode == 0, story.again.stderr
    assert executed(story.again) == []
    assert story.again.stdout[story.again.stdout.index("Encoder  ") :] in story.first.stdout

"""Every profile is complete, valid, and says where published values come from."""

import re
from pathlib import Path

import pytest
import yaml

from pointloom.run import check_params
from pointloom.stages import STAGES
from pointloom.workspace import PROFILES, template


@pytest.mark.parametrize("profile", PROFILES)
def test_profile_is_valid(profile: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(template(f"profiles/{profile}.yaml"))
    assert list(check_params(tmp_path)) == list(STAGES)


@pytest.mark.parametrize("profile", PROFILES)
def test_numbers_are_written_so_that_all_yaml_versions_agree(profile: str) -> None:
    text = re.sub(r"#.*", "", template(f"profiles/{profile}.yaml"))
    assert not re.findall(r"\b\d+(?:\.\d+)?e[+-]?\d+\b", text), "write 0.001, not 1e-3: PyYAML reads that as text"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_encoder_that_is_compared_has_a_supervised_and_an_untrained_row(profile: str) -> None:
    params = yaml.safe_load(template(f"profiles/{profile}.yaml"))
    assert {"pointnet", "scratch", "mae"} <= set(params["finetune"])
    assert {"random", "mae"} <= set(params["probe"])


def test_published_values_name_their_source() -> None:
    """In ``paper``, numbers of training stages carry a comment on their line or stand in a block that has one."""
    lines = template("profiles/paper.yaml").splitlines()
    covered_below = 0
    section = ""
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        indent = len(line) - len(line.lstrip())
        if indent == 0:
            section = line.partition(":")[0]
        if indent <= covered_below:
            covered_below = 0
        has_comment = "#" in line
        value = line.partition("#")[0].partition(":")[2].strip()
        if has_comment and (not value or value.startswith("&")):
            covered_below = indent or 1
        if section in {"pretrain", "finetune"} and re.fullmatch(r"[\d.]+", value):
            assert has_comment or covered_below, f"paper.yaml: no source for {line.strip()!r}"

"""Every profile is complete, valid, and says where published values come from."""

import itertools
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from pointloom.models import ENCODERS, SCENE_ENCODERS
from pointloom.stages import STAGES
from pointloom.stages.encoder_names import ObjectEncoderName, SceneEncoderName
from pointloom.stages.sections import MULTIMODAL_STAGES, check_params
from pointloom.workspace import PIPELINES, PROFILES, template

EVERY = [f"{pipeline}/{profile}" for pipeline, profile in itertools.product(PIPELINES, PROFILES)]
TRAINING = {"pretrain", "align", "distill", "finetune"}
TRAINED = {
    "pretrain": {"mae"},
    "systems": {"mae", "m2ae", "pqae"},
    "multimodal": {"mae", "align", "distill"},
    "scenes": {"mm3dscene", "msm"},
    "detection": {"mm3dscene"},
}


def test_parameters_know_every_encoder() -> None:
    assert set(get_args(ObjectEncoderName)) == set(ENCODERS)
    assert set(get_args(SceneEncoderName)) == set(SCENE_ENCODERS)


@pytest.mark.parametrize("profile", EVERY)
def test_profile_is_valid(profile: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(template(f"profiles/{profile}.yaml"))
    assert list(check_params(tmp_path)) == list(STAGES)


@pytest.mark.parametrize("profile", EVERY)
def test_sections_are_in_the_order_of_the_pipeline(profile: str) -> None:
    assert list(yaml.safe_load(template(f"profiles/{profile}.yaml"))) == list(STAGES)


@pytest.mark.parametrize("profile", EVERY)
def test_multimodal_stages_exist_in_the_multimodal_pipeline_only(profile: str) -> None:
    params = yaml.safe_load(template(f"profiles/{profile}.yaml"))
    for stage in MULTIMODAL_STAGES:
        assert bool(params[stage]) == profile.startswith("multimodal/"), stage


@pytest.mark.parametrize("profile", EVERY)
def test_numbers_are_written_so_that_all_yaml_versions_agree(profile: str) -> None:
    text = re.sub(r"#.*", "", template(f"profiles/{profile}.yaml"))
    assert not re.findall(r"\b\d+(?:\.\d+)?e[+-]?\d+\b", text), "write 0.001, not 1e-3: PyYAML reads that as text"


@pytest.mark.parametrize("profile", EVERY)
def test_every_encoder_that_is_compared_has_a_supervised_and_an_untrained_row(profile: str) -> None:
    params = yaml.safe_load(template(f"profiles/{profile}.yaml"))
    pipeline = profile.partition("/")[0]
    trained = TRAINED[pipeline]
    of_rooms = {"scenes": {"scratch", "mm3dscene"}, "detection": {"votenet", "mm3dscene", "detr"}}
    supervised = of_rooms.get(pipeline, {"pointnet", "scratch"} | trained)
    assert supervised <= set(params["finetune"])
    assert {"random"} | trained <= set(params["probe"])


@pytest.mark.parametrize("profile", EVERY)
def test_every_row_is_compared_with_its_own_architecture_without_pretraining(profile: str) -> None:
    params = yaml.safe_load(template(f"profiles/{profile}.yaml"))
    report, encoders = params["report"], {**params["pretrain"], **params["align"]}
    for stage, baseline, others in (
        ("finetune", report["baseline"], report.get("baselines", {})),
        ("probe", report["probe_baseline"], report.get("probe_baselines", {})),
    ):
        for entry in (TRAINED[profile.partition("/")[0]] & set(params[stage])) - {"distill"}:  # its teacher's encoder
            own, other = (encoders[params[stage][name]["encoder"]] for name in (entry, others.get(entry, baseline)))
            assert (other["method"], other["encoder"]) == ("untrained", own["encoder"]), f"{stage}.{entry}"


@pytest.mark.parametrize(("pipeline", "profile"), itertools.product(("systems", "multimodal"), PROFILES))
def test_what_all_pipelines_do_has_the_same_values(pipeline: str, profile: str) -> None:
    ours, theirs = (yaml.safe_load(template(f"profiles/{name}/{profile}.yaml")) for name in (pipeline, "pretrain"))
    assert ours["prepare"] == theirs["prepare"]
    for stage in ("pretrain", "finetune", "probe"):
        for entry in set(theirs[stage]) - {"scratch_long"}:  # the control has the compute of what it stands beside
            here, there = dict(ours[stage][entry]), dict(theirs[stage][entry])
            shares, more_shares = here.pop("label_epochs", {}), there.pop("label_epochs", {})
            assert here == there, f"{stage}.{entry}"
            assert shares.keys() <= more_shares.keys(), f"{stage}.{entry}"
            if pipeline == "multimodal":  # `systems` has more rows to fine-tune, and does it shorter
                assert shares.items() <= more_shares.items(), f"{stage}.{entry}"


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_published_values_name_their_source(pipeline: str) -> None:
    """In ``paper``, numbers of training stages carry a comment on their line or stand in a block that has one."""
    lines = template(f"profiles/{pipeline}/paper.yaml").splitlines()
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
        if section in TRAINING and re.fullmatch(r"[\d.]+", value):
            assert has_comment or covered_below, f"paper.yaml: no source for {line.strip()!r}"

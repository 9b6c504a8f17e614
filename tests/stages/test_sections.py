"""Checks of ``params.yaml`` before a run: every section, and the names they use for each other."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pointloom.errors import ParamsError
from pointloom.stages.sections import MULTIMODAL_STAGES, check_params
from pointloom.workspace import template

SMOKE = yaml.safe_load(template("profiles/multimodal/smoke.yaml"))


def written(folder: Path, params: dict[str, Any]) -> Path:
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


SCENES = yaml.safe_load(template("profiles/scenes/smoke.yaml"))
SCENES["finetune"]["votenet"] = yaml.safe_load(template("profiles/detection/smoke.yaml"))["finetune"]["votenet"] | {
    "encoder": "scratch"
}


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ({"source": "scannet", "variant": "classes20", "scenes": {"aligned": False}}, "finetune.votenet.*not aligned"),
        ({"source": "sunrgbd", "variant": "votenet"}, "'finetune.votenet': num_headings 1 .* or num_headings: 12"),
        ({"source": "pointcept", "variant": "scannet20"}, "'finetune.votenet': .*set prepare.scenes.aligned: true"),
        ({"scenes": {"aligned": False}}, "the scenes of synthetic_rooms are not aligned"),
        ({"source": "s3dis", "variant": "raw", "scenes": {"aligned": False}}, "the scenes of s3dis are not aligned"),
        ({"source": "s3dis", "variant": "raw"}, "'probe.random': grounding needs sentences about the scenes of s3dis"),
    ],
)
def test_tasks_that_the_prepared_scenes_cannot_have_are_refused(
    tmp_path: Path, prepare: dict[str, Any], message: str
) -> None:
    params = copy.deepcopy(SCENES)
    check_params(written(tmp_path, params))
    params["prepare"] |= prepare
    with pytest.raises(ParamsError, match=message):
        check_params(written(tmp_path, params))


def test_methods_of_the_other_kind_of_data_are_refused(tmp_path: Path) -> None:
    params = copy.deepcopy(SCENES)
    params["prepare"]["source"] = "synthetic"
    with pytest.raises(
        ParamsError, match=r"pretrain.mm3dscene': method 'mm3dscene' learns from scenes, but prepare.so"
    ):
        check_params(written(tmp_path, params))
    params = copy.deepcopy(SMOKE)
    params["prepare"]["source"] = "s3dis"
    with pytest.raises(ParamsError, match=r"pretrain.mae': method 'mae' learns from objects, .* 's3dis' has scenes"):
        check_params(written(tmp_path, params))


def test_unknown_key_names_the_likely_one(tmp_path: Path) -> None:
    params = copy.deepcopy(SMOKE)
    params["pretrain"]["mae"]["optim"]["learning_rate"] = params["pretrain"]["mae"]["optim"].pop("lr")
    params["pretrain"]["mae"]["epoch"] = params["pretrain"]["mae"].pop("epochs")
    with pytest.raises(ParamsError) as caught:
        check_params(written(tmp_path, params))
    text = str(caught.value)
    assert "params.yaml, section 'pretrain.mae': 4 problems" in text
    assert "epoch: unknown key; did you mean 'epochs'?" in text
    assert "epochs: missing" in text
    assert "optim.learning_rate: unknown key; known: lr, min_lr" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(pretrian=1), "unknown section 'pretrian'; did you mean 'pretrain'?"),
        (lambda p: p.pop("probe"), "section 'probe' is missing"),
        (lambda p: p.update(finetune=[]), "section 'finetune': expected one entry per finetune"),
        (lambda p: p["pretrain"]["mae"].update(encoder="point_mea_tiny"), "got.*; did you mean 'point_mae_tiny'"),
        (lambda p: p["finetune"]["mae"].update(encoder="mea"), "'mea' is no entry of 'pretrain'.*did you mean 'mae'"),
        (lambda p: p["probe"]["align"].update(encoder="algin"), "or 'align' or 'distill' .*did you mean 'align'"),
        (lambda p: p["caption"]["offline"].update(views="al"), "section 'caption.offline': views 'al' is no entry of"),
        (lambda p: p["embed"]["offline"].update(views="vews"), "'vews' is no entry of 'render'.*did you mean 'views'"),
        (lambda p: p["embed"]["offline"].update(captions="x"), "captions 'x' is no entry of 'caption' .offline"),
        (lambda p: p["align"]["align"].update(features="ofline"), "'embed'.*did you mean 'offline'"),
        (lambda p: p["distill"]["distill"].update(teacher="mae"), "teacher 'mae' is no entry of 'align'"),
        (lambda p: p.update(embed={}), "section 'align.align': features 'offline' is no entry of 'embed' .none"),
        (lambda p: p.pop("render"), "section 'render' is missing or empty .*leaves the stage out"),
        (lambda p: p.update(align=None), "section 'align' is missing or empty"),
        (lambda p: p.update(pretrain={}), "section 'pretrain': expected one entry per pretrain, got {}"),
        (lambda p: p["align"].update(mae=p["align"]["align"]), "'align.mae': pretrain has an entry 'mae' too"),
        (lambda p: p["pretrain"]["mae"].update(method="mase"), "expected one of .*, got 'mase'; did you mean 'mae'"),
        (lambda p: p["prepare"].update(num_points=4), "num_points: input should be greater than or equal to 16, got 4"),
        (lambda p: p["prepare"].update(num_points=4.5), "num_points: .*got 4.5"),
        (lambda p: p["pretrain"].update(mae=3), "section 'pretrain.mae': expected a mapping of parameters, got 3"),
        (lambda p: p["probe"]["mae"]["sampling"].update(pool=17), "num_points 256 must not exceed pool 17"),
    ],
)
def test_every_mistake_is_explained(tmp_path: Path, change: Any, message: str) -> None:
    params = copy.deepcopy(SMOKE)
    change(params)
    with pytest.raises(ParamsError, match=message):
        check_params(written(tmp_path, params))


def test_workspace_keeps_working_when_its_graph_is_older_than_a_stage(tmp_path: Path) -> None:
    params = yaml.safe_load(template("profiles/pretrain/smoke.yaml"))
    graph = yaml.safe_load(template("dvc.yaml"))
    for stage in MULTIMODAL_STAGES:
        del params[stage], graph["stages"][stage]
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(graph))
    sections = check_params(written(tmp_path, params))
    assert all(sections[stage] == {} for stage in MULTIMODAL_STAGES)


def test_whole_floats_and_numbers_as_text_are_accepted(tmp_path: Path) -> None:
    params = copy.deepcopy(SMOKE)
    params["prepare"]["num_points"] = 1024.0
    params["pretrain"]["mae"]["optim"]["lr"] = "1e-3"
    check_params(written(tmp_path, params))


@pytest.mark.parametrize("text", ["a: [1", "- 1\n", "", "\x00"])
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml: "):
        check_params(tmp_path)

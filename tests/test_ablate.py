"""Ablation tables: what the papers print, and the parameters that every row becomes."""

import copy
import csv
import itertools
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from pydantic import ValidationError

from pointloom.ablate import (
    AblationChoices,
    TableSpec,
    ablation_text,
    build_params,
    changed,
    make_workspace,
    read_system,
    read_table,
    table_names,
)
from pointloom.cli import cli
from pointloom.errors import ParamsError, WorkspaceError
from pointloom.stages import STAGES
from pointloom.stages.pretrain import PretrainParams
from pointloom.stages.pretrain_methods import BUILDERS, SCENE_BUILDERS
from pointloom.stages.read_params import validate
from pointloom.stages.sections import check_params
from pointloom.stages.signature import read_signature
from pointloom.workspace import PROFILES, template

PAPERS = {
    "m2ae": "000_0aa437872e158a2a.txt",
    "two-stage": "002_3b4b6476a0fefaac.txt",
    "msm": "003_69d9b818ed053ea6.txt",
}
AS_PRINTED = {"X": {"m2ae": "✓", "two-stage": "×"}, "-": {"m2ae": "–", "two-stage": "-"}}
LOST = "msm-table1"  # an image in the paper, whose values are in the report's list of published ones
EVERY = list(itertools.product(table_names(), PROFILES[:2]))


def params_of(table: str, *, profile: str = "smoke", seeds: int = 2) -> dict[str, Any]:
    content = yaml.safe_load(ablation_text(AblationChoices(table, profile=profile, seeds=seeds)))
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize(("table", "profile"), EVERY)
def test_parameters_of_every_table_are_valid(table: str, profile: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(ablation_text(AblationChoices(table, profile=profile, seeds=2)))
    assert list(check_params(tmp_path)) == list(STAGES)


@pytest.mark.parametrize(
    "table", [name for name in table_names() if read_system(read_table(name).system).stage == "pretrain"]
)
def test_every_row_of_pretrain_becomes_a_method(table: str) -> None:
    models = read_signature("pretrain", STAGES["pretrain"]).params
    entries = [entry for entry in params_of(table, seeds=1)["pretrain"].values() if entry["method"] != "untrained"]
    assert entries
    for entry in entries:
        params: PretrainParams = validate(models, entry, where=table)  # type: ignore[assignment]
        if params.method in SCENE_BUILDERS:
            assert SCENE_BUILDERS[params.method](params, 10).encoder.dims  # type: ignore[arg-type]
        else:
            assert BUILDERS[params.method](params).encoder.global_dim > 0


@pytest.mark.parametrize("table", [name for name in table_names() if read_table(name).benchmarks and name != LOST])
def test_published_rows_are_lines_of_the_paper(table: str, shared: Path) -> None:
    paper = table.partition("-table")[0]
    lines = (shared / "papers" / PAPERS[paper]).read_text().replace("->", "→").splitlines()
    printed = {" ".join(AS_PRINTED.get(word, {}).get(paper, word) for word in line.split()) for line in lines}
    for row in read_table(table).rows:
        if row.published:
            assert " ".join([*row.cells, *map(str, row.published)]) in printed


def test_published_features_of_scenes_are_those_of_the_report() -> None:
    known = {
        (line["method"], line["transfer"]): float(line["value"])
        for line in csv.DictReader((resources.files("pointloom") / "report" / "published.csv").open(encoding="utf-8"))
        if (line["dataset"], line["variant"], line["metric"]) == ("scannet", "classes20", "miou")
    }
    rows = {row.name: row.published for row in read_table(LOST).rows}
    for name, method in (("mm3dscene", "MM-3DScene (Point Transformer)"), ("full", "MSM (HUNet)")):
        assert rows[name] == [known[method, "linear"], known[method, "nearest"]]


def test_rows_on_scenes_change_pretraining_or_the_probe_and_are_measured_by_the_tables_protocols_alone() -> None:
    params = params_of("msm-table10", profile="demo", seeds=3)
    full, last = params["pretrain"]["full_s2"], params["pretrain"]["last_level_s2"]
    assert {key for key in full if full[key] != last[key]} == {"loss_levels"}
    assert params["pretrain"]["convolution_s0"]["encoder_args"] == {"blocks": "convolution"}
    assert params["pretrain"]["msc_s0"] | {"seed": 1} == params["pretrain"]["msc_s1"]
    same = {"encoder", "epochs", "sampling", "optim", "splits"}
    assert {key: params["pretrain"]["msc_s1"][key] for key in same} == {key: full[key] for key in same}
    probes = params["probe"].values()
    assert {bool(entry["linear"] and entry["nearest"]) for entry in probes} == {True}
    assert {entry["instances"] or entry["grounding"] for entry in probes} == {None}
    assert params["finetune"] == params["report"]["probe_baselines"] == {}
    levels = params_of("msm-table11", seeds=2)
    assert list(levels["pretrain"]) == ["scratch", "full_s0", "full_s1"]
    assert levels["probe"]["alone_3_s1"] | {"levels": None} == levels["probe"]["full_s1"] | {"levels": None}
    assert [levels["probe"][f"{name}_s0"]["levels"] for name in ("alone_1", "without_1")] == [[1], [2, 3, 4]]
    assert "levels" not in levels["probe"]["random"]


def test_rows_of_one_seed_differ_in_the_ablated_value_alone() -> None:
    pretrain = params_of("m2ae-table8")["pretrain"]
    full, other = pretrain["full_s1"], pretrain["no_multi_scale_s1"]
    assert {key for key in full if full[key] != other[key]} == {"multi_scale"}
    assert {key for key in full if full[key] != pretrain["full_s0"][key]} == {"seed"}
    assert full["mask_ratio"] == 0.8
    assert pretrain["ratio_60_s0"]["mask_ratio"] == 0.6
    assert full["epochs"] == yaml.safe_load(template("profiles/pretrain/smoke.yaml"))["pretrain"]["mae"]["epochs"]


def test_a_seed_is_that_of_pretraining_probe_and_finetuning_and_all_seeds_are_of_random_weights() -> None:
    params = params_of("two-stage-table4", seeds=3)
    for name, entry in params["distill"].items():
        seed = int(name[-1])
        assert entry["seed"] == seed
        assert entry["teacher"] == f"teacher_s{seed}"
        assert params["align"][f"teacher_s{seed}"]["seed"] == seed
        assert params["probe"][name]["seeds"] == params["finetune"][name]["seeds"] == [seed]
    assert params["probe"]["random"]["seeds"] == params["finetune"]["random"]["seeds"] == [0, 1, 2]
    assert list(params["finetune"]["full_s0"]["label_epochs"]) == [1.0]


def test_hierarchical_backbone_is_that_of_teacher_and_random_weights() -> None:
    params = params_of("two-stage-table4", seeds=1)
    assert params["align"]["teacher_s0"]["encoder"] == params["pretrain"]["scratch"]["encoder"] == "point_m2ae_tiny"
    assert {entry["mask_ratio"] for entry in params["distill"].values()} == {0.8}
    assert params_of("two-stage-table9", seeds=1)["align"]["teacher_s0"]["encoder"] == "point_mae_tiny"


def test_row_of_stage_1_measures_the_teacher_and_trains_nothing() -> None:
    params = params_of("two-stage-table4")
    assert not [name for name in params["distill"] if name.startswith("stage_1")]
    assert params["probe"]["stage_1_s1"]["encoder"] == "teacher_s1"


def test_fine_tuning_table_pretrains_once_per_seed() -> None:
    params = params_of("m2ae-table10")
    assert list(params["pretrain"]) == ["scratch", "full_s0", "full_s1"]
    assert params["finetune"]["max_pooling_s0"]["encoder"] == "full_s0"
    assert params["finetune"]["max_pooling_s0"]["encoder_args"]["pooling"] == "max"
    assert params["finetune"]["no_local_attention_s1"]["encoder"] == "full_s1"
    assert params["finetune"]["no_local_attention_s1"]["encoder_args"]["local_attention"] is False
    assert params["finetune"]["full_s1"]["encoder_args"]["local_attention"] is True


def test_rows_of_stage_1_with_masked_modelling_have_the_values_of_stage_2_for_it() -> None:
    params = params_of("two-stage-table9", seeds=1)
    plain, second = params["align"]["teacher_s0"], params["distill"]["full_s0"]
    for name, order in (("joint_s0", "together"), ("reversed_s0", "first")):
        entry = params["align"][name]
        masked = entry.pop("masked")
        assert entry == plain
        assert masked.pop("order") == order
        masked.pop("momentum", None)
        assert masked.items() <= second.items()
        assert ("epochs" in masked) == (order == "first")
        assert params["probe"][name]["encoder"] == params["finetune"][name]["encoder"] == name
    assert list(params["distill"]) == ["fresh_student_s0", "full_s0"]


def test_only_views_captions_and_features_that_alignment_needs_are_made() -> None:
    params = params_of("two-stage-table8", profile="demo", seeds=1)
    assert list(params["embed"]) == [params["align"]["teacher_s0"]["features"]] == ["offline"]
    assert list(params["caption"]) == ["offline"]
    assert list(params["render"]) == ["views"]


def test_values_are_changed_in_a_copy_and_dots_go_deeper() -> None:
    entry = {"a": 1, "b": {"c": 2, "d": 3}}
    before = copy.deepcopy(entry)
    assert changed(entry, {"a": 5, "b.c": 6}) == {"a": 5, "b": {"c": 6, "d": 3}}
    assert entry == before


def test_parameters_name_results_of_every_row_and_no_result_of_rows_that_are_not_built() -> None:
    content = yaml.safe_load(template("ablations/m2ae-table11.yaml"))
    for row in content["rows"][1:3]:
        row["not_built"] = "nobody wrote it"
    table = TableSpec.model_validate(content)
    profile = yaml.safe_load(template("profiles/pretrain/smoke.yaml"))
    params = build_params("m2ae-table11", table, profile, seeds=2)
    rows = params["report"]["ablation"]["rows"]
    assert [row["entries"] for row in rows] == [
        ["full_s0", "full_s1"],
        [],
        [],
        ["three_decoded_s0", "three_decoded_s1"],
    ]
    assert {name for row in rows for name in row["entries"]} | {"random"} == set(params["probe"])
    assert all(row["not_built"] for row in rows[1:3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["rows"].pop(0), "one of them 'full'"),
        (lambda t: t["rows"][1].update(name="full"), "different names"),
        (lambda t: t["rows"][1]["cells"].pop(), "row 'no_multi_scale' needs a cell per column"),
        (lambda t: t["rows"][1]["published"].append(1.0), "a value per benchmark"),
        (lambda t: t.update(measured=["svn"]), "svm"),
    ],
)
def test_table_that_is_not_rectangular_is_refused(change: Any, message: str) -> None:
    content = yaml.safe_load(template("ablations/m2ae-table8.yaml"))
    change(content)
    with pytest.raises(ValidationError, match=message):
        TableSpec.model_validate(content)


def test_unknown_table_names_the_likely_one() -> None:
    with pytest.raises(ParamsError, match=r"'m2ae-tabel8'; did you mean 'm2ae-table8'"):
        read_table("m2ae-tabel8")


def test_workspace_is_made_once_and_edits_are_kept(tmp_path: Path) -> None:
    choices = AblationChoices("m2ae-table8", profile="smoke", seeds=1, folder=tmp_path / "ws")
    folder, as_asked = make_workspace(choices)
    assert as_asked
    file = folder / "params.yaml"
    edited = file.read_text().replace("epochs: 2", "epochs: 3")
    file.write_text(edited)
    assert make_workspace(choices) == (folder, False)
    assert file.read_text() == edited
    with pytest.raises(WorkspaceError, match=r"workspace of table 'm2ae-table8', asked for 'm2ae-table12'"):
        make_workspace(AblationChoices("m2ae-table12", profile="smoke", seeds=1, folder=folder))


def test_dry_run_prints_the_parameters_and_makes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "ws"
    done = CliRunner().invoke(cli, ["ablate", "m2ae-table8", "--seeds", "1", "-w", str(folder), "--dry-run"])
    assert yaml.safe_load(done.stdout)["report"]["ablation"]["name"] == "m2ae-table8"
    assert not folder.exists()


def test_list_shows_every_table() -> None:
    text = CliRunner().invoke(cli, ["ablate", "--list"]).stdout
    assert all(f"{name} " in text for name in table_names())
    assert "5 rows" in text

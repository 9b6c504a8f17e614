"""What a run will take: the arithmetic by hand, the rates from real short runs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pointloom.calibrate import fitted, measure, shortened
from pointloom.errors import ParamsError
from pointloom.plan import (
    Rate,
    Rates,
    as_json,
    as_table,
    estimate,
    read_rates,
    stage_hours,
    steps,
    trainings_of,
    units_of,
)
from pointloom.plan_command import plan
from pointloom.stages.sections import check_params
from pointloom.workspace import PIPELINES, template

SMOKE: dict[str, Any] = yaml.safe_load(template("profiles/multimodal/smoke.yaml"))
NAMES = [f"{stage}.{entry}" if entry else stage for stage, entry, _ in steps(SMOKE)]


def rates(**changed: dict[str, float]) -> Rates:
    known = {name: Rate(unit_s=0.0) for name in NAMES}
    return Rates(rates=known | {name.replace("__", "."): Rate(**values) for name, values in changed.items()})


@pytest.mark.parametrize(
    ("stage", "values", "units"),
    [
        ("prepare", {"seed": 0}, 1000),
        ("render", {}, 1000),
        ("pretrain", {"epochs": 300}, 300 * 750),
        ("pretrain", {"method": "untrained"}, 1000),
        ("finetune", {"seeds": [0, 1], "label_epochs": {1.0: 100, "0.1": 500}}, 2 * 750 * (100 + 50)),
        ("finetune", {"seeds": [0, 1, 2], "epochs": 10}, 3 * 750 * 10),
        ("probe", {"seeds": [0, 1, 2]}, 3000),
    ],
)
def test_units_of_work_are_objects_or_samples(stage: str, values: dict[str, Any], units: float) -> None:
    assert units_of(stage, values, objects=1000, test_fraction=0.25) == pytest.approx(units)


def test_a_step_takes_its_start_and_so_much_per_unit() -> None:
    given = rates(prepare={"start_s": 5, "unit_s": 0.02, "unit_cpu_s": 0.03, "start_bytes": 1e6, "unit_bytes": 2e5})
    first = estimate(SMOKE, given, objects=800_000)[0]
    assert (first.name, first.wall_s, first.cpu_s, first.size) == ("prepare", 16_005, 24_000, 1e6 + 1.6e11)


def test_splitting_stages_share_machines_and_separate_trainings_stand_side_by_side() -> None:
    hour = 3600.0
    given = rates(
        prepare={"unit_s": 0, "start_s": 8 * hour},
        pretrain__mae={"unit_s": 0, "start_s": 4 * hour, "gpu": True},
        finetune__scratch={"unit_s": 0, "start_s": 3 * hour, "gpu": True},
        finetune__mae={"unit_s": 0, "start_s": 1 * hour, "gpu": True},
    )
    estimates = estimate(SMOKE, given, objects=10)
    assert stage_hours(estimates, 1) == pytest.approx(
        dict.fromkeys(("render", "caption", "embed", "align", "distill", "probe", "report"), 0.0)
        | {"prepare": 8.0, "pretrain": 4.0, "finetune": 4.0}
    )
    on_four = stage_hours(estimates, 4)
    assert (on_four["prepare"], on_four["pretrain"], on_four["finetune"]) == pytest.approx((2.0, 1.0, 3.0))
    text = as_table(estimates, given, machines=4)
    assert "Time on 4 machine(s): 6.0 h. Bottleneck: finetune, 50% of it." in text
    assert "GPU-hours: 8.0." in text
    assert json.loads(as_json(estimates, given, machines=4))["gpu_hours"] == pytest.approx(8.0)


def test_what_was_not_measured_is_named_and_not_guessed() -> None:
    given = rates()
    del given.rates["caption.offline"]
    given.missing["caption.offline"] = "no weights at models/blip2"
    estimates = estimate(SMOKE, given, objects=10)
    assert [each.name for each in estimates if each.wall_s is None] == ["caption.offline"]
    text = as_table(estimates, given, machines=1)
    assert "Not in these numbers: caption.offline (no weights at models/blip2)" in text
    assert "GPU-hours: unknown" in text
    assert "caption" not in stage_hours(estimates, 1)


def test_a_line_goes_through_two_measurements_and_never_falls() -> None:
    def point(units: float, seconds: float) -> dict[str, float]:
        taken = {"wall_s": seconds, "cpu_s": 2 * seconds, "bytes": 100 + 7 * units}
        return taken | {"units": units, "objects": units, "epochs": 1}

    rate = fitted([point(100, 6.0), point(200, 9.0), point(400, 9.0)], gpu=False)
    assert (rate.start_s, rate.unit_s, rate.unit_cpu_s) == pytest.approx((5.0, 0.01, 0.02))
    assert (rate.start_bytes, rate.unit_bytes) == pytest.approx((100, 7))
    noisy = fitted([point(100, 6.0), point(400, 4.0)], gpu=True)
    assert (noisy.start_s, noisy.unit_s, noisy.gpu) == pytest.approx((4 / 3, 1 / 150, True))


@pytest.mark.parametrize(
    ("values", "trainings"),
    [({}, 0), ({"seeds": [0, 1]}, 0), ({"epochs": 300}, 1), ({"seeds": [0, 1], "epochs": 9}, 2),
     ({"seeds": [0, 1, 2], "label_epochs": {1.0: 100, 0.1: 500}}, 6)],
)  # fmt: skip
def test_trainings_are_counted(values: dict[str, Any], trainings: int) -> None:
    assert trainings_of(values) == trainings


def test_longer_run_tells_epochs_from_what_is_done_once() -> None:
    def point(objects: float, epochs: float) -> dict[str, float]:
        samples = 0.75 * objects * epochs
        seconds = 5 + 0.02 * objects + 0.004 * samples
        taken = {"wall_s": seconds, "cpu_s": 2 * seconds, "bytes": 9.0}
        return taken | {"units": samples, "objects": objects, "epochs": epochs}

    rate = fitted([point(60, 1), point(240, 1), point(240, 4)], gpu=False)
    assert (rate.start_s, rate.object_s, rate.unit_s) == pytest.approx((5, 0.02, 0.004))
    assert (rate.start_cpu_s, rate.object_cpu_s, rate.unit_cpu_s) == pytest.approx((10, 0.04, 0.008))
    given = Rates(rates={"finetune.mae": rate})  # two seeds, all labels and a fifth of them: four trainings
    (plan,) = [each for each in estimate(SMOKE, given, objects=1000) if each.wall_s is not None]
    assert plan.wall_s == pytest.approx(5 + 4 * 0.02 * 1000 + 0.004 * 2 * 750 * 1.2)
    same = {"wall_s": 6.0, "cpu_s": 6.0}
    noisy = fitted([point(60, 1) | same, point(240, 1) | same, point(240, 4)], gpu=False)
    assert noisy.start_s + noisy.unit_s * point(240, 1)["units"] == pytest.approx(6.0)
    assert noisy.object_s == 0


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("profile", ["smoke", "demo", "paper"])
def test_short_runs_have_valid_parameters_for_every_profile(tmp_path: Path, pipeline: str, profile: str) -> None:
    params = yaml.safe_load(template(f"profiles/{pipeline}/{profile}.yaml"))
    for stage, entry, values in steps(params):
        short = shortened(stage, values, objects=40)
        if entry:
            params[stage][entry] = short
        else:
            params[stage] = short
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    checked = check_params(tmp_path)
    assert all(values.get("epochs", 1) == 1 for values in checked["pretrain"].values())


def test_file_of_rates_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="measure this machine with --measure"):
        read_rates(tmp_path / "rates.json")
    (tmp_path / "rates.json").write_text('{"rates": {"prepare": {"unit_s": -1, "seconds": 2}}}')
    with pytest.raises(ParamsError, match=r"rates.prepare.unit_s: .*\n.*rates.prepare.seconds: Extra inputs"):
        read_rates(tmp_path / "rates.json")


def test_command_prints_a_plan_from_rates_that_were_given(tmp_path: Path) -> None:
    file = tmp_path / "rates.json"
    file.write_text('{"rates": {"prepare": {"unit_s": 0.01, "unit_bytes": 180000}}}')
    words = ["--objects", "800000", "--profile", "paper", "--gpus", "8", "--rates", str(file)]
    done = CliRunner().invoke(plan, words, catch_exceptions=False)
    assert re.search(r"^prepare +800,000 +144.0 GB +2.2 h", done.output, re.MULTILINE)
    assert "Time on 8 machine(s): 16.7 min. Bottleneck: prepare, 100% of it." in done.output
    assert "Not in these numbers: caption.blip2 (the file of rates does not have it)" in done.output


def test_slow_steps_are_not_measured_at_the_last_size_nor_is_what_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, str, int]] = []

    def pretend(stage: str, entry: str, values: dict[str, Any], _: Any, workspace: Path) -> dict[str, float] | str:
        objects, epochs = int(workspace.name), values.get("epochs", 0)
        ran.append((stage, entry, objects))
        if stage == "caption" and objects == 400:
            return "no views there"
        seconds = 5 + 0.01 * objects + 0.001 * 0.75 * objects * epochs + (100 if stage == "render" else 0)
        return {"wall_s": seconds, "cpu_s": 2 * seconds, "bytes": 100.0 * objects}

    monkeypatch.setattr("pointloom.calibrate.run_step", pretend)
    stages = ("prepare", "render", "caption", "align")
    found = measure(SMOKE, tmp_path, tell=lambda _: None, stages=stages, sizes=(50, 100, 400))
    assert [objects for stage, _, objects in ran if stage == "render"] == [50, 100]
    assert [objects for stage, _, objects in ran if stage == "align"] == [50, 100, 100, 400, 400]
    assert found.missing == {}
    rates = {name: (rate.start_s, rate.object_s, rate.unit_s) for name, rate in found.rates.items()}
    expected = {
        "prepare": (5, 0, 0.01), "render.views": (105, 0, 0.01), "caption.offline": (5, 0, 0.01),
        "align.align": (5, 0.01, 0.001),
    }  # fmt: skip
    assert set(rates) == set(expected)
    for name, values in expected.items():
        assert rates[name] == pytest.approx(values), name


@pytest.mark.slow
def test_real_short_runs_give_rates_for_the_data_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    wanted = ("prepare", "render", "caption", "embed", "align")
    blip2 = yaml.safe_load(template("profiles/multimodal/paper.yaml"))["caption"]["blip2"]
    monkeypatch.setenv("POINTLOOM_MODELS", str(tmp_path / "models"))
    params = SMOKE | {"caption": {"offline": blip2}}
    lines: list[str] = []
    found = measure(params, tmp_path, tell=lines.append, stages=wanted, sizes=(20, 40, 60))
    assert set(found.rates) == {"prepare", "render.views"}
    assert set(found.missing) == {"caption.offline", "embed.offline", "align.align"}
    assert "no weights at" in found.missing["caption.offline"]
    assert all(rate.unit_s > 0 and rate.unit_bytes > 0 and not rate.gpu for rate in found.rates.values())
    size = sum(path.stat().st_size for path in (tmp_path / "40/data/objects").rglob("*") if path.is_file())
    rate = found.rates["prepare"]
    assert rate.start_bytes + 40 * rate.unit_bytes == pytest.approx(size, rel=0.02)  # folders count too

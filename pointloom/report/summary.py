"""The result tables as plain dictionaries: fine-tuning, comparisons with the controls, low-label curves, probes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pointloom.report.inputs import ReportInputs, ResultRecord
from pointloom.report.outcomes import BootstrapSettings, Key, compare, compare_episodes, select_outcomes
from pointloom.report.statistics import spread, standard_error

Row = dict[str, Any]
ORDER = {"svm": 0, "linear": 1, "mlp3": 2}
STEP = {"align": 1, "distill": 2}
"""Methods that build on others; all other pre-training comes before them."""


@dataclass(frozen=True)
class Baseline:
    """What the rows of a block are compared with.

    Attributes:
        name: Result that differences are taken against.
        others: Result -> the one it is compared with instead, for another architecture.
    """

    name: str
    others: Mapping[str, str]

    def of(self, result: ResultRecord) -> str | None:
        """Return the name of the result that another one is compared with, None for the baseline itself."""
        return None if result.name == self.name else self.others.get(result.name, self.name)


def finetune_rows(inputs: ReportInputs, *, baseline: Baseline, bootstrap: BootstrapSettings) -> list[Row]:
    """Return one row per fine-tuned model at its largest training fraction; models from scratch come first."""
    rows = []
    for result in in_order(inputs.finetune):
        fraction = max(_fractions(result), default=None)
        if fraction is None:
            continue
        row = _header(result) | _cost(inputs, result, fraction) | _accuracies(_at(result, fraction), _num_test(result))
        row["fraction"] = fraction
        row["epochs"] = _at(result, fraction)[0].get("epochs", result.protocol.get("epochs"))
        row |= _compared_with(result, baseline)
        row |= _differences(inputs, result, inputs.finetune.get(row["baseline"]), fraction, bootstrap)
        rows.append(row)
    return rows


def comparison_rows(inputs: ReportInputs, *, bootstrap: BootstrapSettings) -> list[Row]:
    """Return every pre-trained, fine-tuned model against every model trained from scratch, all labels used."""
    rows = []
    scratch = [result for result in in_order(inputs.finetune) if not result.trained and _fractions(result)]
    for result in in_order(inputs.finetune):
        if not result.trained or not _fractions(result):
            continue
        fraction = max(_fractions(result))
        total = _cost(inputs, result, fraction)["cpu_total_s"]
        for control in scratch:
            if fraction not in _fractions(control):
                continue
            cost = _cost(inputs, control, fraction)["cpu_total_s"]
            same = result.encoder.get("builder") == control.encoder.get("builder")
            epochs, own = _at(control, fraction)[0].get("epochs"), _at(result, fraction)[0].get("epochs")
            rows.append(
                {
                    "name": result.name,
                    "labels": result.encoder.get("labels", "none"),
                    "control": control.name,
                    "control_model": control.encoder.get("builder", "?"),
                    "same_architecture": same,
                    "epochs": own,
                    "control_epochs": epochs,
                    "control_compute": cost / total if cost and total else None,
                }
                | _differences(inputs, result, control, fraction, bootstrap)
            )
    return rows


def step_rows(inputs: ReportInputs, *, bootstrap: BootstrapSettings) -> list[Row]:
    """Return aligned and distilled encoders against every pre-training before them: fine-tuned and by linear SVM."""
    rows = []
    for table, results in (("finetune", inputs.finetune), ("svm", inputs.probe)):
        trained = [result for result in in_order(results) if result.trained and _keys(result, table)]
        for result in trained:
            for other in trained:
                keys = set(_keys(result, table)) & set(_keys(other, table))
                if _step(other) >= _step(result) or other.encoder.get("builder") != result.encoder.get("builder"):
                    continue
                if keys:
                    row = {"table": table, "name": result.name, "labels": result.encoder.get("labels", "none")}
                    row |= {"other": other.name, "other_labels": other.encoder.get("labels", "none")}
                    row["nearest"] = _step(other) == max(_step(one) for one in trained if _step(one) < _step(result))
                    rows.append(row | _differences(inputs, result, other, max(keys), bootstrap))
    return rows


def low_label_rows(inputs: ReportInputs, *, baseline: Baseline, bootstrap: BootstrapSettings) -> list[Row]:
    """Return one row per fraction and model, for the models that were trained on more than one fraction."""
    curves = [result for result in in_order(inputs.finetune) if len(_fractions(result)) > 1]
    rows = []
    for fraction in sorted({fraction for result in curves for fraction in _fractions(result)}):
        for result in curves:
            runs = _at(result, fraction)
            if not runs:
                continue
            row = _header(result) | _accuracies(runs, _num_test(result))
            row |= {"fraction": fraction, "num_train": runs[0].get("num_train"), "epochs": runs[0].get("epochs")}
            row |= _compared_with(result, baseline)
            rows.append(row | _differences(inputs, result, inputs.finetune.get(row["baseline"]), fraction, bootstrap))
    return rows


def probe_rows(inputs: ReportInputs, *, baseline: Baseline, bootstrap: BootstrapSettings) -> list[Row]:
    """Return one row per probe protocol and frozen encoder, grouped by protocol; random weights come first."""
    found = {str(run["protocol"]) for result in inputs.probe.values() for run in result.runs if "protocol" in run}
    rows = []
    for protocol in sorted(found, key=lambda name: (ORDER.get(name, len(ORDER)), name)):
        for result in in_order(inputs.probe):
            runs = _of(result, protocol)
            if not runs:
                continue
            few_shot = protocol.startswith("few_shot")
            row = _header(result) | _accuracies(runs, None if few_shot else runs[0].get("num_test", _num_test(result)))
            row |= {"protocol": protocol, "difference": None} | _compared_with(result, baseline)
            row["repeat"] = "episode" if few_shot else "seed"
            row["C"] = sorted({float(run["C"]) for run in runs if run.get("C") is not None})
            row |= {key: runs[0].get(key) for key in ("num_classes", "classes_named", "chance")}
            reference = inputs.probe.get(row["baseline"])
            if reference is not None:
                first, second = select_outcomes(result, protocol), select_outcomes(reference, protocol)
                if few_shot:
                    row["difference"] = compare_episodes(runs, _of(reference, protocol), bootstrap=bootstrap)
                else:
                    row["difference"] = compare(first, second, store=inputs.store, bootstrap=bootstrap)
            rows.append(row)
    return rows


def in_order(results: dict[str, ResultRecord]) -> list[ResultRecord]:
    """Other architectures from scratch, then the encoder from scratch, then pre-trained by stage; never by score."""
    builders = {result.encoder.get("builder") for result in results.values() if result.trained}
    return sorted(
        results.values(),
        key=lambda result: (
            result.trained,
            result.encoder.get("builder") in builders,
            _step(result),
            result.name,
        ),
    )


def _step(result: ResultRecord) -> int:
    return STEP.get(str(result.encoder.get("method")), 0)


def _keys(result: ResultRecord, table: str) -> list[Key]:
    """Return what predictions of a result are stored by: fractions of the labels, or the probe protocol."""
    return [*_fractions(result)] if table == "finetune" else ["svm"] if _of(result, "svm") else []


def _fractions(result: ResultRecord) -> list[float]:
    return sorted({float(run["fraction"]) for run in result.runs if "fraction" in run})


def _at(result: ResultRecord, fraction: float) -> list[Row]:
    return [run for run in result.runs if run.get("fraction") == fraction]


def _of(result: ResultRecord, protocol: str) -> list[Row]:
    return [run for run in result.runs if run.get("protocol") == protocol]


def _num_test(result: ResultRecord) -> int | None:
    number = result.card.get("data", {}).get("num_test")
    return int(number) if number else None


def _header(result: ResultRecord) -> Row:
    encoder, protocol = result.encoder, result.protocol
    return {
        "name": result.name,
        "model": encoder.get("builder", "?"),
        "method": encoder.get("method", "?"),
        "trained": result.trained,
        "labels": encoder.get("labels", "none"),
        "num_parameters": encoder.get("num_parameters"),
        "num_test": _num_test(result),
        "selection": protocol.get("selection"),
        "votes": protocol.get("votes"),
        "num_points": protocol.get("num_points"),
        "seed_covers": protocol.get("seed_covers"),
    }


def _accuracies(runs: list[Row], num_test: int | None) -> Row:
    """Return the accuracies, and the standard error of the test set where every test object was classified."""
    row: Row = {"seeds": len({run.get("seed") for run in runs})}
    for key in ("oa", "oa_vote", "macc", "macc_vote"):
        found = spread([float(run[key]) for run in runs if run.get(key) is not None])
        row[key] = asdict(found) if found else None
    row["standard_error"] = standard_error(row["oa"]["mean"], num_test) if row["oa"] and num_test else None
    return row


def _compared_with(result: ResultRecord, baseline: Baseline) -> Row:
    return {"is_baseline": result.name == baseline.name, "baseline": baseline.of(result)}


def _cost(inputs: ReportInputs, result: ResultRecord, fraction: float) -> Row:
    """CPU seconds: pre-training once, fine-tuning per seed, and their sum."""
    spent = spread([float(run["cpu_s"]) for run in _at(result, fraction) if run.get("cpu_s") is not None])
    before = inputs.training_cost(inputs.encoder_of(result)) if result.trained else 0.0
    return {
        "cpu_pretrain_s": before,
        "cpu_finetune_s": spent.mean if spent else None,
        "cpu_total_s": None if before is None or spent is None else before + spent.mean,
    }


def _differences(
    inputs: ReportInputs,
    result: ResultRecord,
    reference: ResultRecord | None,
    key: Key,
    bootstrap: BootstrapSettings,
) -> Row:
    row: Row = {"difference": None, "difference_vote": None}
    if reference is None or reference is result:
        return row
    for column, vote in (("difference", False), ("difference_vote", True)):
        first = select_outcomes(result, key, vote=vote)
        second = select_outcomes(reference, key, vote=vote)
        row[column] = compare(first, second, store=inputs.store, bootstrap=bootstrap)
    return row

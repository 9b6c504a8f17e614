"""What was run on what data, at what cost, and which inputs were left out."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pointloom._version import __version__
from pointloom.report.inputs import Records, ReportInputs, SceneInputs

Row = dict[str, Any]
EXAMPLES = 8


def dataset_facts(inputs: ReportInputs) -> Row:
    """Return what the store says about itself."""
    store, info = inputs.store, inputs.store.info
    return {
        "source": info.source,
        "digest": info.digest,
        "num_points": info.num_points,
        "num_objects": len(store),
        "num_classes": len(info.classes),
        "classes": list(info.classes),
        "splits": {split: len(store.rows(split)) for split in ("train", "test", "pretrain")},
        "groups": len(set(store.groups.tolist())),
        "counts": dict(info.counts),
        "quarantined": info.quarantined,
        "notes": list(info.notes),
        "settings": dict(info.settings),
        "labelled": bool((store.labels >= 0).any()),
    }


def stage_rows(inputs: Records) -> list[Row]:
    """Return the cost of every stage that left a metrics file, in the order of the pipeline."""
    return [
        {"stage": record.stage, "name": record.name if record.name != record.stage else ""}
        | run_facts(record.run)
        | {"waiting": record.metrics.get("percent_waiting_for_data")}
        for record in inputs.stages
    ]


def bottleneck(rows: list[Row]) -> str | None:
    """Say which stage takes longest, how many cores it keeps busy and how much training waits; None without any."""
    timed = [row for row in rows if row["wall_s"] and row["cpu_s"] is not None]
    if not timed:
        return None
    longest = max(timed, key=lambda row: row["wall_s"])
    share = longest["wall_s"] / sum(row["wall_s"] for row in timed)
    cores = longest["cpu_s"] / longest["wall_s"]
    text = f"{_title(longest)} takes {share:.0%} of the time and keeps {cores:.1f} cores busy"
    waiting = [row for row in timed if row["waiting"] is not None]
    if not waiting:
        return f"{text}."
    worst = max(waiting, key=lambda row: row["waiting"])
    return f"{text}; loader-bound {worst['waiting']:.1f} % at most ({_title(worst)})."


def _title(row: Row) -> str:
    return f"{row['stage']} {row['name']}".strip()


def run_facts(run: Mapping[str, Any]) -> Row:
    """Return when, at what cost and from what code a stage ran, as its metrics file says; None for what is unknown."""
    keys = (
        "started",
        "wall_s",
        "cpu_s",
        "peak_memory_mb",
        "load_average",
        "params_sha256",
        "data_digest",
        "mlflow_run_id",
    )
    git = run.get("git") or {}
    return {key: run.get(key) for key in keys} | {"git": git.get("revision"), "dirty": git.get("dirty")}


def encoder_rows(inputs: Records) -> list[Row]:
    """Return the description of every encoder."""
    keys = (
        "builder",
        "method",
        "labels",
        "num_parameters",
        "weights_sha256",
        "parent_sha256",
        "data_digest",
        "up_axis",
    )
    return [
        {"name": encoder.name} | {key: encoder.card.get(key) for key in keys} | {"params": encoder.card.get("params")}
        for encoder in inputs.encoders.values()
    ]


def protocols(inputs: Records) -> Row:
    """Return what was done for every result, by stage and name."""
    found = [("finetune", inputs.finetune), ("probe", inputs.probe)]
    return {f"{stage} {name}": result.protocol for stage, results in found for name, result in results.items()}


def versions(inputs: Records) -> Row:
    """Return every version that any stage reported; several where stages differ."""
    found: dict[str, set[str]] = {"pointloom": {__version__}}
    for record in inputs.stages:
        for package, version in (record.run.get("versions") or {}).items():
            found.setdefault(package, set()).add(str(version))
    return {package: sorted(values) for package, values in sorted(found.items())}


def quarantine_rows(inputs: ReportInputs | SceneInputs) -> list[Row]:
    """Return left-out inputs grouped by reason, most frequent first, with a few examples each."""
    failures = inputs.store.failures()
    counts = Counter(failure.get("reason", "unknown") for failure in failures)
    return [
        {
            "reason": reason,
            "count": count,
            "examples": [
                {"path": failure.get("path", "?"), "detail": failure.get("detail", "")}
                for failure in failures
                if failure.get("reason", "unknown") == reason
            ][:EXAMPLES],
        }
        for reason, count in counts.most_common()
    ]

"""An ablation table on scenes: mean IoU of frozen features, paired over seeds and test scenes."""

from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from pointloom.report.ablation import encoder_builder, filled_table
from pointloom.report.inputs import ResultRecord, SceneInputs
from pointloom.report.outcomes import BootstrapSettings
from pointloom.report.scene_tables import paired_difference_of
from pointloom.report.statistics import spread

Row = dict[str, Any]


def scene_ablation_content(inputs: SceneInputs, table: Row | None, *, bootstrap: BootstrapSettings) -> Row | None:
    """Return the table with our values beside the published ones, None where there is no table.

    Args:
        inputs: Everything the earlier stages left behind.
        table: Parameters of the table (``report.ablation``), whose measures are protocols of the probe.
        bootstrap: How intervals are made.
    """
    if table is None:
        return None
    return filled_table(table, partial(_measured, inputs, bootstrap=bootstrap), model=encoder_builder(inputs, table))


def _measured(inputs: SceneInputs, row: Row, full: Row, measure: str, *, bootstrap: BootstrapSettings) -> Row:
    """Return mean and spread over the seeds, and the paired difference to the full method."""
    own, whole = (_joined(inputs, each["entries"], measure) for each in (row, full))
    found = spread([float(run["miou"]) for run in own.runs]) if own else None
    difference = None
    if own and whole and not row["is_full"]:
        difference = paired_difference_of(own, whole, measure, 1.0, bootstrap=bootstrap)
    return {
        "score": asdict(found) if found else None,
        "difference": asdict(difference) | {"verdict": difference.verdict} if difference else None,
    }


def _joined(inputs: SceneInputs, entries: list[str], protocol: str) -> ResultRecord | None:
    """Return the runs of several probes, each with seeds of its own, as those of one; None without any."""
    runs: list[Row] = []
    counts = []
    for result in (inputs.probe[name] for name in entries if name in inputs.probe):
        for place, run in enumerate(result.runs):
            if run["protocol"] == protocol and run["fraction"] == 1:
                runs.append(run)
                counts += [result.predictions["confusion"][place]] if "confusion" in result.predictions else []
    if not runs:
        return None
    kept = {"confusion": np.stack(counts)} if len(counts) == len(runs) else {}
    return ResultRecord(name=entries[0], card={"runs": runs}, predictions=kept)

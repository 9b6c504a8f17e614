"""Sentences generated from the numbers; a difference whose interval holds 0 is never called a gain."""

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
MANY = 2
"""More pre-trained encoders than this get fewer sentences each."""


def format_spread(value: Row | None) -> str:
    """Return ``62.0 ± 0.4``, without the spread for one run, a dash for none."""
    if value is None:
        return "–"
    return f"{value['mean']:.1f}" if value["std"] is None else f"{value['mean']:.1f} ± {value['std']:.1f}"


def format_difference(value: Row | None) -> str:
    """Return ``+5.2 [+2.1, +8.3]``, a dash for none."""
    if value is None:
        return "–"
    return f"{format_signed(value['mean'])} {format_interval(value)}"


def format_interval(value: Row) -> str:
    """Return ``[+2.1, +8.3]``; a bound that would round to zero keeps a digit, for its sign decides the verdict."""
    return f"[{_format_bound(value['low'])}, {_format_bound(value['high'])}]"


def _format_bound(value: float) -> str:
    return f"{value:+.1g}".replace("-", "−") if 1e-4 < abs(value) < 0.05 else format_signed(value)


def format_signed(value: float) -> str:
    """Return a number with its sign and one decimal; what rounds to zero has no sign."""
    text = f"{value:+.1f}".replace("-", "−")
    return "0.0" if text in {"+0.0", "−0.0"} else text


def format_seconds(value: float | None) -> str:
    """Return ``3.2 s``, ``4 min 10 s`` or ``2 h 05 min``, a dash for none."""
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def describe(row: Row) -> str:
    """Return what was trained, in words: pre-trained with which method, or from scratch."""
    if row["trained"]:
        return f"{row['model']}, pre-trained ({row['method']})"
    return f"{row['model']}, random weights" if "protocol" in row else f"{row['model']}, supervised from scratch"


def judge(difference: Row) -> str:
    """Return a difference in words with its interval."""
    return f"{format_difference(difference)} points ({difference['verdict']})"


def headline(
    *, finetune: Sequence[Row], comparisons: Sequence[Row], probe: Sequence[Row], low_label: Sequence[Row]
) -> list[str]:
    """Return the findings in the order a reader asks for them; the rest is left to the tables.

    Those are comparisons with other architectures and, for more than two encoders, every probe protocol but the first.
    """
    found = []
    by_name = {row["name"]: row for row in finetune}
    for row in finetune:
        if row["trained"] and row["oa"]:
            kind = "self-supervised" if row["labels"] == "none" else f"labels: {row['labels']}"
            found.append(
                f"{row['name']} ({kind}) fine-tuned reaches {format_spread(row['oa'])} % on the test set"
                + (f", {format_spread(row['oa_vote'])} % with voting" if row["oa_vote"] else "")
                + f" ({count(row['seeds'], 'seed')})."
            )
    for row in comparisons:
        if not row["difference"] or not row["same_architecture"]:
            continue
        control = by_name.get(row["control"], {})
        what = f"{row['control']} ({format_spread(control.get('oa'))} %"
        if row["control_epochs"] is not None:
            what += f", {count(int(row['control_epochs']), 'epoch')}"
        if row["control_compute"] is not None:
            what += f", {row['control_compute']:.2f} × the total compute"
        found.append(f"{row['name']} against {what}): {judge(row['difference'])}.")
    protocols = list(dict.fromkeys(row["protocol"] for row in probe))
    encoders = {row["name"] for row in probe if row["trained"]}
    told = protocols if len(encoders) <= MANY else protocols[:1]
    for row in probe:
        if row["trained"] and row["difference"] and row["protocol"] in told:
            found.append(
                f"Frozen features, {protocol_title(row['protocol'])}: {row['name']} reaches "
                f"{format_spread(row['oa'])} %; against {baseline(probe, row)} {judge(row['difference'])}."
            )
    largest = max((row["fraction"] for row in low_label), default=None)
    for row in low_label:
        if row["trained"] and row["difference"] and row["fraction"] != largest:
            found.append(
                f"With {100 * row['fraction']:g} % of the training labels {row['name']} reaches "
                f"{format_spread(row['oa'])} %; against {baseline(low_label, row)} on the same labels "
                f"{judge(row['difference'])}."
            )
    return found


def baseline(rows: Sequence[Row], compared: Row) -> str:
    """Return the name of the row that another one is compared with, with what it is."""
    found = [row for row in rows if row["name"] == compared["baseline"]]
    if not found:
        return "the baseline"
    kind = "untrained" if "protocol" in found[0] else "no pre-training"
    return str(found[0]["name"]) + ("" if found[0]["trained"] else f" ({kind})")


def count(number: int, noun: str) -> str:
    """Return ``1 seed`` or ``3 seeds``."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def protocol_title(protocol: str) -> str:
    """Return the name of a probe protocol in words."""
    titles = {
        "svm": "linear SVM",
        "linear": "linear classifier",
        "mlp3": "three-layer MLP",
        "text": "classification by text, no training (names of classes were in training captions: not zero-shot)",
        "zero_shot": "zero-shot by text, among classes whose names were in no training caption",
    }
    if protocol.startswith("few_shot"):
        way, _, shot = protocol.removeprefix("few_shot_").rstrip("s").partition("w")
        return f"few-shot, {way}-way {shot}-shot"
    return titles.get(protocol, protocol)

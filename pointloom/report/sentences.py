"""Sentences generated from the numbers; a difference whose interval holds 0 is never called a gain."""

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def format_spread(value: Row | None) -> str:
    """Return ``62.0 ± 0.4``, without the spread for one run, a dash for none."""
    if value is None:
        return "–"
    return f"{value['mean']:.1f}" if value["std"] is None else f"{value['mean']:.1f} ± {value['std']:.1f}"


def format_difference(value: Row | None) -> str:
    """Return ``+5.2 [+2.1, +8.3]``, a dash for none."""
    if value is None:
        return "–"
    return f"{_signed(value['mean'])} [{_signed(value['low'])}, {_signed(value['high'])}]"


def format_seconds(value: float | None) -> str:
    """Return ``3.2 s``, ``4 min 10 s`` or ``2 h 05 min``, a dash for none."""
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def describe(row: Row) -> str:
    """Return what was trained, in words: pre-trained with which method, or from scratch."""
    if row["trained"]:
        return f"{row['model']}, pre-trained ({row['method']})"
    return f"{row['model']}, random weights" if "protocol" in row else f"{row['model']}, supervised from scratch"


def judge(difference: Row) -> str:
    """Return a difference in words with its interval."""
    words = {"better": "proven better", "worse": "proven worse"}.get(difference["verdict"], difference["verdict"])
    return f"{format_difference(difference)} points ({words})"


def headline(
    *, finetune: Sequence[Row], comparisons: Sequence[Row], probe: Sequence[Row], low_label: Sequence[Row]
) -> list[str]:
    """Return the findings in the order a reader asks for them."""
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
        if not row["difference"]:
            continue
        control = by_name.get(row["control"], {})
        what = f"{row['control']} ({format_spread(control.get('oa'))} %"
        if row["control_epochs"] is not None:
            what += f", {row['control_epochs']:g} epochs"
        if row["control_compute"] is not None:
            what += f", {row['control_compute']:.2f} × the total compute"
        found.append(f"{row['name']} against {what}): {judge(row['difference'])}.")
    for row in probe:
        if row["trained"] and row["difference"]:
            found.append(
                f"Frozen features, {protocol_title(row['protocol'])}: {row['name']} reaches {format_spread(row['oa'])} %; "
                f"against random weights {judge(row['difference'])}."
            )
    largest = max((row["fraction"] for row in low_label), default=None)
    for row in low_label:
        if row["trained"] and row["difference"] and row["fraction"] != largest:
            found.append(
                f"With {100 * row['fraction']:g} % of the training labels {row['name']} reaches {format_spread(row['oa'])} %; "
                f"against training from scratch on the same labels {judge(row['difference'])}."
            )
    return found


def count(number: int, noun: str) -> str:
    """Return ``1 seed`` or ``3 seeds``."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def protocol_title(protocol: str) -> str:
    """Return the name of a probe protocol in words."""
    titles = {"svm": "linear SVM", "linear": "linear classifier", "mlp3": "three-layer MLP"}
    if protocol.startswith("few_shot"):
        return "few-shot " + protocol.removeprefix("few_shot").strip("_")
    return titles.get(protocol, protocol)


def reading_notes(content: Row) -> list[str]:
    """Return what a reader must know before quoting a number."""
    notes = []
    if not content["dataset"]["labelled"]:
        return [
            "The data has no class labels. Everything that needs labels (fine-tuning, probes, per-class results, "
            "retrieval scores) was skipped; what is left shows the data, the pre-training and the features."
        ]
    rows = content["finetune"] or content["probe"]
    tests = content["num_test"]
    if rows and tests:
        notes.append(
            f"The test set has {tests} objects: one standard error of an accuracy near {rows[-1]['oa']['mean']:.0f} % is "
            f"{content['standard_error']:.1f} points. ± is the standard deviation over seeds and is usually smaller: "
            "it does not contain the noise of the test set. The intervals do."
        )
    notes.append(
        f"Intervals are paired: the same test objects and seeds for both sides, {content['bootstrap']['resamples']:,} bootstrap "
        f"resamples over groups of objects and over seeds, {100 * content['bootstrap']['confidence']:g} % coverage. An interval "
        "that holds 0 is “no proven difference”, whichever mean is larger. Many intervals are shown; at this coverage about "
        f"one in {round(1 / (1 - content['bootstrap']['confidence']))} misses its true value by chance."
    )
    rules = sorted({str(row["selection"]) for row in content["finetune"] if row["selection"]})
    rule_words = {"last": "the last epoch is used, no choice was made on the test set", "official": (
        "the best epoch on the test set is used, as the field does: these numbers are optimistic"
    )}
    notes += [f"Selection “{rule}”: {rule_words.get(rule, 'see the parameters')}." for rule in rules]
    notes.append(
        "“Voted” averages the predictions of several point draws and scales of each test object; it costs that many more "
        "forward passes, and is never mixed with the single column."
    )
    notes.append(
        "The tag says which labels the encoder saw before it was fine-tuned or probed: none, captions (which may name the "
        "class) or classes. Only rows with the tag none may be called self-supervised. Fine-tuning and probes use class "
        "labels in every row."
    )
    notes.append(
        "Equal fine-tuning epochs favour a pre-trained encoder, because its pre-training is not counted. The row trained "
        "longer from scratch is the control; its compute as a multiple of pre-training plus fine-tuning stands beside it."
    )
    seeds = sorted({str(row["seed_covers"]) for row in rows if row["seed_covers"]})
    if seeds:
        notes.append(f"A seed covers: {'; '.join(seeds)}. What it does not cover (such as another pre-training) is not in ±.")
    return notes

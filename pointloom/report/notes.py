"""What a reader must know before quoting a number; written for the data, protocols and tables at hand."""

from typing import Any

Row = dict[str, Any]

UNLABELLED = (
    "The data has no class labels. Everything that needs labels (fine-tuning, probes, per-class results, retrieval "
    "scores) was skipped; what is left shows the data, the pre-training and the features."
)
SELECTION = {
    "last": "the weights of the last epoch are used; no choice was made on the test set",
    "official": "the best epoch on the test set is used, as is the field's habit: these numbers are optimistic",
}
VOTED = (
    "“Accuracy” is the mean over random draws of each test object's points; “voted” averages the predictions of those "
    "draws first. Voting costs that many forward passes per object and is never mixed with the single column."
)
LABELS = (
    "The tag says which labels the encoder saw before it was fine-tuned or probed: none, captions (which may name the "
    "class) or classes. Only pre-trained rows with the tag none may be called self-supervised. Fine-tuning and probes "
    "use class labels in every row."
)
EQUAL_COMPUTE = (
    "At equal fine-tuning epochs a pre-trained encoder has had more compute, because its pre-training is not counted. "
    "A row trained longer from scratch is the control for that; its CPU time as a multiple of pre-training plus "
    "fine-tuning stands beside each comparison."
)
NO_CONTROL = (
    "At equal fine-tuning epochs a pre-trained encoder has had more compute. No row here was trained from scratch for "
    "as long as pre-training plus fine-tuning, so a gain may be a gain of compute."
)
DATA_COST = (
    "Views, captions and teacher features are made once for all encoders and are not in the CPU time of a row; what "
    "they took is in the table of stages."
)
CONTROL_SHARE = 0.9


def reading_notes(content: Row) -> list[str]:
    """Return the notes for the content of a report."""
    if not content["dataset"]["labelled"]:
        return [UNLABELLED]
    rows = [*content["finetune"], *content["probe"]]
    notes = []
    if content["standard_error"] is not None:
        notes.append(
            f"The test set has {content['num_test']} objects: one standard error of an accuracy near "
            f"{content['standard_error_at']:.0f} % is {content['standard_error']:.1f} points. ± is the standard "
            "deviation over seeds. It is usually smaller, because it does not contain the noise of the test set; the "
            "intervals do."
        )
    notes.append(_intervals(content["bootstrap"]))
    for rule in sorted({str(row["selection"]) for row in content["finetune"] if row["selection"]}):
        notes.append(f"Selection “{rule}”: {SELECTION.get(rule, 'see the protocols below')}.")
    if any(row["oa_vote"] for row in rows):
        notes.append(VOTED)
    notes.append(LABELS)
    if content["comparisons"]:
        shares = [row["control_compute"] or 0 for row in content["comparisons"] if row["same_architecture"]]
        notes.append(EQUAL_COMPUTE if max(shares, default=0) >= CONTROL_SHARE else NO_CONTROL)
    if content["multimodal"]:
        notes.append(DATA_COST)
    for table, word in (("finetune", "Fine-tuning"), ("probe", "Probes")):
        for covers in sorted({str(row["seed_covers"]) for row in content[table] if row["seed_covers"]}):
            notes.append(f"{word}: a seed covers {covers}. Each encoder was pre-trained once.")
    if any(row["seeds"] == 1 for row in rows):
        notes.append("A row with one seed has no ±; its intervals cover the choice of test objects only.")
    return notes


def _intervals(bootstrap: Row) -> str:
    return (
        f"Intervals are paired: the same test objects and seeds on both sides, {bootstrap['resamples']:,} bootstrap "
        "resamples over groups of variants of an object and over seeds, "
        f"{100 * bootstrap['confidence']:g} % coverage. An interval that holds 0 is “no proven difference”, whichever "
        "mean is larger. Many intervals are shown: about one in "
        f"{round(1 / (1 - bootstrap['confidence']))} misses its true value by chance. Few-shot intervals resample "
        "episodes."
    )

"""What a reader must know before quoting a number; written for the data, protocols and tables at hand."""

from collections.abc import Iterable, Sequence
from typing import Any

from pointloom.report.sentences import count

Row = dict[str, Any]

UNLABELLED = (
    "The data has no class labels. Everything that needs labels (fine-tuning, probes, per-class results, retrieval "
    "scores) was skipped; what is left shows the data, the pre-training and the features."
)
NOTHING_TESTED = "No classification was tested, so there is no accuracy and nothing to compare."
SELECTION = {
    "last": "the weights of the last epoch are used; no choice was made on the test set",
    "official": "the best epoch on the test set is used, as is the field's habit: these numbers are optimistic",
}
VOTED = (
    "“Accuracy” is the mean over {draws} of each test object; “voted” averages the predictions of those "
    "draws first. Voting costs that many forward passes per object and is never mixed with the single column."
)
FARTHEST = "Every test object was tested once, on its farthest points, as papers do; “voted” is the same number."
EPOCHS_OF_SHARES = (
    "Low-label rows of different shares were trained for different numbers of epochs; compare models at one share, not "
    "one model along the shares."
)
FEWER_SEEDS = (
    "Rows that have other seeds than their baseline are compared on the seeds that both have, so a difference need not "
    "be the difference of the two means."
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
    if not rows and not content["multimodal"]:
        return [NOTHING_TESTED, *content["dataset"]["notes"]]
    notes = []
    if content["standard_error"] is not None:
        notes.append(
            f"The test set has {content['num_test']} objects: one standard error of an accuracy near "
            f"{content['standard_error_at']:.0f} % is {content['standard_error']:.1f} points. ± is the standard "
            "deviation over seeds (of few-shot rows over episodes). It is usually smaller, because it does not contain "
            "the noise of the test set; the intervals do."
        )
    notes.append(_intervals(content["bootstrap"]))
    if any(len(numbers) > 1 for numbers in _seed_numbers(content)):
        notes.append(FEWER_SEEDS)
    for rule in sorted({str(row["selection"]) for row in content["finetune"] if row["selection"]}):
        notes.append(f"Selection “{rule}”: {SELECTION.get(rule, 'see the protocols below')}.")
    if any(row["oa_vote"] for row in rows):
        notes.append(_voting_note(content["protocols"].values()))
    notes.append(LABELS)
    if content["comparisons"]:
        shares = [row["control_compute"] or 0 for row in content["comparisons"] if row["same_architecture"]]
        notes.append(EQUAL_COMPUTE if max(shares, default=0) >= CONTROL_SHARE else NO_CONTROL)
    if content["multimodal"]:
        notes.append(DATA_COST)
    for table, word in (("finetune", "Fine-tuning"), ("probe", "Probes")):
        for covers in sorted({str(row["seed_covers"]) for row in content[table] if row["seed_covers"]}):
            notes.append(f"{word}: a seed covers {covers}. Each encoder was pre-trained once.")
    notes += _share_notes(content["low_label"])
    notes += _few_shot_notes(content["protocols"].values())
    notes += _svm_notes(content["protocols"].values())
    if any(row["seeds"] == 1 for row in rows):
        notes.append("A row with one seed has no ±; its intervals cover the choice of test objects only.")
    return notes


def _seed_numbers(content: Row) -> list[set[int]]:
    """Return the numbers of seeds in every block of the table of results; few-shot rows count episodes instead."""
    seeds = [row["seeds"] for row in content["probe"] if row["repeat"] == "seed"]
    return [{row["seeds"] for row in content["finetune"]}, set(seeds)]


def _voting_note(protocols: Iterable[Row]) -> str:
    """Say on which points test objects were tested, without numbers where results differ."""
    found = {(protocol["votes"], protocol.get("num_points")) for protocol in protocols if protocol.get("votes")}
    if {votes for votes, _ in found} == {1}:
        return FARTHEST
    if len(found) != 1:
        return VOTED.format(draws="random draws of the points")
    votes, points = found.pop()
    return VOTED.format(draws=f"{count(votes, 'random draw')} of {count(points, 'point') if points else 'the points'}")


def _share_notes(rows: Sequence[Row]) -> list[str]:
    """Say where shares of the labels differ in epochs, or are larger than named because every class keeps an object."""
    notes = [EPOCHS_OF_SHARES] if len({row["epochs"] for row in rows}) > 1 else []
    objects = {row["fraction"]: row.get("num_train") for row in rows}
    whole = objects.get(1.0)
    larger = [
        f"{100 * share:g} % are {number} of {whole}"
        for share, number in sorted(objects.items())
        if number and whole and number > 1.1 * share * whole
    ]
    if larger:
        notes.append(f"Every class keeps an object, so that small shares are larger than named: {', '.join(larger)}.")
    return notes


def _few_shot_notes(protocols: Iterable[Row]) -> list[str]:
    """Say where too few classes have enough objects for an episode."""
    found = set()
    for few in (protocol["few_shot"] for protocol in protocols if protocol.get("few_shot")):
        eligible = few.get("eligible_classes")
        if eligible is not None and eligible < few["way"]:
            found.add(
                f"Few-shot, {few['way']}-way {few['shot']}-shot, was left out: {eligible} classes have {few['shot']} "
                f"training and {few['query']} test objects, {few['way']} are needed."
            )
    return sorted(found)


def _svm_notes(protocols: Iterable[Row]) -> list[str]:
    """Say where the C of linear SVMs comes from."""
    found = []
    for svm in (protocol["svm"] for protocol in protocols if protocol.get("svm")):
        values = ", ".join(f"{value:g}" for value in svm["C"])
        if svm.get("protocol") == "official":
            found.append(f"Linear SVM: C is {values}, as in the official code.")
        else:
            found.append(
                f"Linear SVM: C is chosen among {values} by {svm['folds']}-fold cross-validation on training objects; "
                "the rows name what the seeds chose."
            )
    return sorted(set(found))


def _intervals(bootstrap: Row) -> str:
    return (
        f"Intervals are paired: the same test objects and seeds on both sides, {bootstrap['resamples']:,} bootstrap "
        "resamples over groups of variants of an object and over seeds, "
        f"{100 * bootstrap['confidence']:g} % coverage. An interval that holds 0 is “no proven difference”, whichever "
        "mean is larger. Many intervals are shown: about one in "
        f"{round(1 / (1 - bootstrap['confidence']))} misses its true value by chance. Few-shot intervals resample "
        "episodes."
    )

"""Choose settings without the test split: trials on a part of the training list, the rest held out.

A quarter of the training list (whole groups, balanced over classes) becomes the validation split of a workspace of its
own; the objects of the test list are never read. Every recipe of pre-training is followed by the same recipes of
fine-tuning, from scratch as well. Finished trials are not run again.

    python benchmarks/choose_settings.py DATA TRAIN_LIST FOLDER [--groups TABLE]
"""

import copy
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml
from sklearn.model_selection import StratifiedGroupKFold

from pointloom.workspace import WorkspaceChoices, init_workspace

PRETRAIN: dict[str, dict[str, Any]] = {
    "scratch": {"method": "untrained"},
    "mae, batch 32": {},
    "mae, batch 16": {"batch_size": 16},
}
FINETUNE: dict[str, dict[str, Any]] = {
    f"batch {batch}, rate {lr:g}": {"batch_size": batch, "optim": {"lr": lr}}
    for batch in (16, 32)
    for lr in (0.0005, 0.001)
}


def write_lists(train_list: Path, groups: Path | None, folder: Path) -> tuple[Path, Path]:
    """Cut the training list by group (``file,class,group`` columns of a table) or, without one, by file."""
    files = train_list.read_text(encoding="utf-8").split()
    rows = {row["file"]: row for row in csv.DictReader(groups.open(encoding="utf-8"))} if groups else {}
    classes = [rows[file]["class"] if rows else file.split("/")[0] for file in files]
    names = [rows[file]["group"] if rows else file for file in files]
    fit, held_out = next(StratifiedGroupKFold(4, shuffle=True, random_state=0).split(files, classes, names))
    known = {classes[i] for i in fit}
    lists = folder / "fit.txt", folder / "validation.txt"
    for path, chosen in zip(lists, (fit, [i for i in held_out if classes[i] in known]), strict=True):
        path.write_text("".join(f"{files[i]}\n" for i in chosen), encoding="utf-8")
    return lists


def changed(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the values of ``change``; a nested mapping changes the keys it names."""
    result = copy.deepcopy(base)
    for key, value in change.items():
        result[key] = changed(base[key], value) if isinstance(value, dict) and isinstance(base[key], dict) else value
    return result


def stage(workspace: Path, name: str, params: dict[str, Any], output: Path, **paths: str) -> None:
    """Run one stage unless its output is there."""
    if not (workspace / output).exists():
        options = [word for key, value in paths.items() for word in (f"--{key}", value)]
        command = [sys.executable, "-m", "pointloom", "--quiet", name, "--params", json.dumps(params), *options]
        metrics = workspace / "reports" / name / f"{output.name}.json"
        subprocess.run([*command, "--metrics", str(metrics)], cwd=workspace, check=True)


def accuracy(workspace: Path, result: str, metric: str) -> str:
    """Return mean and standard deviation over the seeds of a result."""
    runs = json.loads((workspace / result / "result.json").read_text(encoding="utf-8"))["runs"]
    values = np.array([run[metric] for run in runs])
    return f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"


@click.command(context_settings={"show_default": True})
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.argument("train_list", type=click.Path(path_type=Path, exists=True))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--groups", type=click.Path(path_type=Path, exists=True), help="Table with columns file, class, group.")
@click.option("--seeds", default=2, help="Fine-tuning runs per recipe.")
def main(data: Path, train_list: Path, folder: Path, groups: Path | None, seeds: int) -> None:
    """Print validation accuracies of all recipes."""
    folder.mkdir(parents=True, exist_ok=True)
    fit, validation = write_lists(train_list, groups, folder)
    workspace = folder / "workspace"
    init_workspace(WorkspaceChoices(folder=workspace, data=data, train_list=fit, test_list=validation))
    base = yaml.safe_load((workspace / "params.yaml").read_text(encoding="utf-8"))
    store = "data/objects"
    stage(workspace, "prepare", base["prepare"], Path(store), source=str(data.resolve()), dataset=store)
    click.echo("| pre-training | fine-tuning | accuracy | voted |\n|---|---|---|---|")
    for pretraining, change in PRETRAIN.items():
        name = pretraining.replace(", ", "-").replace(" ", "")
        encoder = f"models/{name}"
        params = base["pretrain"]["scratch"] if change.get("method") else changed(base["pretrain"]["mae"], change)
        stage(workspace, "pretrain", params, Path(encoder), dataset=store, encoder=encoder)
        paths = {"dataset": store, "encoder": encoder}
        frozen = f"results/{name}-svm"
        only_svm = {"encoder": name, "linear": None, "mlp3": None, "few_shot": None}
        stage(workspace, "probe", base["probe"]["mae"] | only_svm, Path(frozen), **paths, result=frozen)
        click.echo(f"| {pretraining} | frozen, linear SVM | {accuracy(workspace, frozen, 'oa')} | |")
        for recipe, other in FINETUNE.items():
            result = f"results/{name}-{recipe.replace(', ', '-').replace(' ', '')}"
            epochs = base["finetune"]["mae"]["label_epochs"][1.0]
            fixed = {"encoder": name, "seeds": list(range(seeds)), "label_epochs": {"1.0": epochs}}
            stage(
                workspace, "finetune", changed(base["finetune"]["mae"], other) | fixed, Path(result), **paths,
                result=result,
            )  # fmt: skip
            single, vote = (accuracy(workspace, result, metric) for metric in ("oa", "oa_vote"))
            click.echo(f"| {pretraining} | {recipe} | {single} | {vote} |")


if __name__ == "__main__":
    main()

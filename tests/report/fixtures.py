"""A workspace after all stages but the report, with made-up numbers: results that look real, in seconds."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from pointloom.data.shards import Failure, ObjectPoints, ObjectRecord, write_store

CLASSES = ("chair", "lamp", "mug", "sofa", "table", "vase")
SKILLS = {"pointnet": 0.55, "scratch": 0.60, "scratch_long": 0.66, "mae": 0.68, "align": 0.74, "distill": 0.78}
MAIN_JOB = ("pointnet", "scratch", "scratch_long", "mae")
BUILDERS = {"pointnet": "pointnet"}
EPOCHS = {"scratch_long": 90}


def box_cloud(rng: np.random.Generator, kind: int, num_points: int) -> ObjectPoints:
    """Points on a few boxes whose proportions depend on the class."""
    boxes = np.random.default_rng(kind).uniform(0.2, 1.0, size=(3, 3)) * rng.uniform(0.8, 1.2, size=(3, 3))
    offset = np.random.default_rng(kind + 100).uniform(-0.6, 0.6, size=(3, 3))
    part = rng.integers(0, 3, size=num_points)
    point = rng.uniform(-0.5, 0.5, size=(num_points, 3))
    axis, side = rng.integers(0, 3, size=num_points), rng.choice([-0.5, 0.5], size=num_points)
    point[np.arange(num_points), axis] = side
    coord = point * boxes[part] + offset[part]
    coord -= (coord.min(axis=0) + coord.max(axis=0)) / 2
    coord /= np.linalg.norm(coord, axis=1).max()
    normal = np.zeros_like(coord)
    normal[np.arange(num_points), axis] = np.sign(side)
    palette = rng.integers(40, 230, size=(3, 3))
    return ObjectPoints(coord=coord.astype("f4"), normal=normal.astype("f4"), color=palette[part].astype("u1"))


def write_dataset(folder: Path, *, train: int, test: int, num_points: int, labelled: bool, failures: bool) -> None:
    """Write a store with ``train`` and ``test`` objects per class."""
    rng = np.random.default_rng(0)
    objects = []
    for kind, category in enumerate(CLASSES):
        for number in range(train + test):
            split = ("train" if number < train else "test") if labelled else "pretrain"
            uid = f"{category}_{number:03d}"
            record = ObjectRecord(
                uid=uid,
                path=f"{category}/{uid}.glb",
                name=f"{category} {number}",
                category=category if labelled else None,
                group=f"{category}{number // 2}",
                split=split,
                up_axis="y",
                transform=tuple(np.eye(4).ravel().tolist()),
                sha256=f"{kind:032x}{number:032x}",
                num_faces=12,
            )
            objects.append((record, box_cloud(rng, kind, num_points)))
    broken = [
        Failure(path="chair/broken.glb", reason="unreadable", detail="the file ends after 12 of 400 bytes"),
        Failure(path="mug/empty.obj", reason="empty", detail="no faces"),
        Failure(path="mug/flat <b>.obj", reason="empty", detail="no faces"),
    ]
    write_store(
        folder,
        objects,
        num_points=num_points,
        source="folder",
        settings={"seed": 0},
        failures=broken if failures else [],
    )


def _index(dataset: Path) -> dict[str, np.ndarray]:
    from pointloom.data.shards import ObjectStore

    store = ObjectStore(dataset)
    arrays = {"uid": store.uids, "split": store.splits, "label": store.labels}
    return arrays | {"digest": np.array(store.info.digest), "classes": np.array(store.info.classes or CLASSES)}


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def labels_of(method: str) -> str:
    return "captions" if method in {"align", "distill"} else "none"


def write_encoder(models: Path, dataset: Path, name: str, *, method: str, builder: str, num_points: int) -> None:
    """Write ``encoder.json`` and, for a trained method, its curve and reconstructions."""
    index = _index(dataset)
    card = {"format": 1, "builder": builder, "builder_args": {}, "method": method, "labels": labels_of(method)}
    card["up_axis"] = "z"
    card |= {"data_digest": str(index["digest"]), "params": {"method": method}, "versions": {"torch": "2.13.0"}}
    card |= {"git": {"revision": "0123456789abcdef", "dirty": False}, "weights_sha256": f"sha-{name}"}
    _write_json(models / name / "encoder.json", card | {"num_parameters": 2_790_000, "parent_sha256": None})
    if method == "untrained":
        return
    _write_csv(
        models / name / "curves.csv",
        [{"epoch": e, "loss": 5 + 90 * 0.9**e, "lr": 0.001, "cpu_s": 2.8} for e in range(40)],
    )
    if method != "mae":
        return
    from pointloom.data.shards import ObjectStore

    store = ObjectStore(dataset)
    rng = np.random.default_rng(1)
    rows = store.rows("test")[:4] if (index["split"] == "test").any() else store.rows("pretrain")[:4]
    coord = store.coords(rows, num_points)
    np.savez(
        models / name / "samples.npz",
        uid=store.uids[rows],
        coord=coord,
        visible=rng.uniform(size=coord.shape[:2]) < 0.45,
        reconstruction=coord[:, : num_points // 2]
        + rng.normal(0, 0.02, size=(len(rows), num_points // 2, 3)).astype("f4"),
    )


def write_finetune(
    results: Path, dataset: Path, name: str, *, method: str, builder: str, seeds: int, fractions: tuple[float, ...]
) -> None:
    """Write made-up fine-tuning runs whose predictions agree with their accuracies."""
    index = _index(dataset)
    classes = index["classes"].tolist()
    test, rng = index["split"] == "test", np.random.default_rng(len(name))
    uid, label = index["uid"][test], index["label"][test]
    luck = np.random.default_rng(7).uniform(size=len(uid))  # shared: some objects are hard for everybody
    runs, predictions, votes, curve = [], [], [], []
    for fraction in fractions:
        for seed in range(seeds):
            skill = SKILLS[name] - 0.15 * (1 - fraction) * (1.4 if method == "untrained" else 1.0)
            wrong = (label + rng.integers(1, len(classes), size=len(uid))) % len(classes)
            noise = rng.uniform(size=len(uid))
            single = np.where(0.8 * luck + 0.2 * noise < skill, label, wrong)
            vote = np.where(0.8 * luck + 0.2 * noise < skill + 0.03, label, wrong)
            predictions.append(single)
            votes.append(vote)
            run = {"fraction": fraction, "seed": seed, "num_train": int(fraction * (index["split"] == "train").sum())}
            run |= {"epochs": EPOCHS.get(name, 40), "loss": 0.9, "cpu_s": 4.2 * EPOCHS.get(name, 40), "wall_s": 90.0}
            for key, chosen in (("", single), ("_vote", vote)):
                run["oa" + key] = float(100 * (chosen == label).mean())
                run["macc" + key] = float(
                    100 * np.mean([(chosen == label)[label == c].mean() for c in range(len(classes))])
                )
            runs.append(run)
            curve += [
                {"fraction": fraction, "seed": seed, "epoch": e, "loss": 3 * 0.95**e, "lr": 1e-3, "train_oa": 2.0 * e}
                for e in range(20)
            ]
    folder = results / "finetune" / name
    card = {"format": 1, "stage": "finetune", "name": name, "task": "classification", "runs": runs}
    card["encoder"] = {"builder": builder, "method": method, "labels": labels_of(method), "sha256": f"sha-{name}"} | {
        "num_parameters": 2_790_000
    }
    card["data"] = {"digest": str(index["digest"]), "num_train": 24, "num_test": len(uid), "classes": classes}
    card["protocol"] = {"selection": "last", "epochs": EPOCHS.get(name, 40), "votes": 10, "num_points": 1024}
    card["protocol"] |= {"head": "linear", "seed_covers": "head initialisation, order of the data, augmentation"}
    _write_json(folder / "result.json", card)
    np.savez(
        folder / "predictions.npz",
        uid=uid,
        label=label,
        prediction=np.array(predictions, dtype="i2"),
        prediction_vote=np.array(votes, dtype="i2"),
        fraction=np.array([run["fraction"] for run in runs]),
        seed=np.array([run["seed"] for run in runs]),
    )
    _write_csv(folder / "curves.csv", curve)


def write_probe(results: Path, dataset: Path, name: str, *, method: str, seeds: int, labelled: bool) -> None:
    """Write made-up probe runs and features that separate the classes as well as the skill says."""
    index = _index(dataset)
    classes = index["classes"].tolist()
    test, rng = index["split"] == "test", np.random.default_rng(3)
    uid, label = index["uid"][test], index["label"][test]
    runs, predictions, protocols = [], [], []
    skill = {"untrained": 0.44, "align": 0.66, "distill": 0.70}.get(method, 0.56)
    luck = np.random.default_rng(8).uniform(size=len(uid))
    for protocol in ("svm", "linear", "few_shot_5w10s") if labelled else ():
        for seed in range(seeds):
            right = 0.8 * luck + 0.2 * rng.uniform(size=len(uid)) < skill
            chosen = np.where(right, label, (label + 1) % len(classes))
            run = {"protocol": protocol, "seed": seed, "oa": float(100 * right.mean()), "macc": 40.0, "cpu_s": 12.0}
            if protocol == "svm":
                run["C"] = 0.1
            runs.append(run)
            if not protocol.startswith("few_shot"):
                predictions.append(chosen)
                protocols.append((protocol, seed))
    folder = results / "probe" / name
    card = {"format": 1, "stage": "probe", "name": name, "runs": runs, "protocol": {"seed_covers": "point draw"}}
    card["encoder"] = {
        "builder": "point_mae_tiny",
        "method": method,
        "labels": labels_of(method),
        "sha256": f"sha-{name}",
    }
    card["data"] = {"digest": str(index["digest"]), "num_train": 24, "num_test": len(uid), "classes": classes}
    _write_json(folder / "result.json", card)
    if labelled:
        np.savez(
            folder / "predictions.npz",
            uid=uid,
            label=label,
            prediction=np.array(predictions, dtype="i2"),
            protocol=np.array([protocol for protocol, _ in protocols]),
            seed=np.array([seed for _, seed in protocols]),
        )
    from pointloom.data.shards import ObjectStore

    store = ObjectStore(dataset)
    rows = np.flatnonzero(test)[:4] if test.any() else np.arange(4)
    coord = store.coords(rows, min(256, store.info.num_points))
    means = rng.normal(size=(len(classes) + 1, 16)) * 2 * skill
    np.savez(
        folder / "features.npz",
        uid=index["uid"],
        split=index["split"],
        label=index["label"],
        feature=(means[index["label"]] + rng.normal(size=(len(index["uid"]), 16))).astype("f4"),
        point_uid=store.uids[rows],
        point_coord=coord,
        point_feature=np.concatenate([np.sin(4 * coord), np.cos(3 * coord)], axis=-1).astype("f2"),
    )


def write_runs(runs: Path) -> None:
    """Write the metrics files of the earlier stages."""
    run = {"wall_s": 95.0, "cpu_s": 171.0, "peak_memory_mb": 812.5, "started": "2026-01-02T03:04:05+00:00"}
    run |= {
        "versions": {"torch": "2.13.0", "pointloom": "0.1.0"},
        "git": {"revision": "0123456789abcdef", "dirty": True},
    }
    run |= {"params_sha256": "ab" * 32, "data_digest": "cd" * 32, "mlflow_run_id": "f00", "load_average": 1.5}
    names = ["prepare", "pretrain/mae", "finetune/mae", "finetune/scratch", "probe/mae"]
    for name in names:
        stage, _, entry = name.partition("/")
        _write_json(
            runs / f"{name}.json", {"metrics": {"loss": 1.0}, "run": {"stage": stage, "name": entry or stage} | run}
        )


def write_workspace(
    root: Path,
    *,
    train: int = 4,
    test: int = 6,
    num_points: int = 512,
    seeds: int = 3,
    fractions: tuple[float, ...] = (0.2, 1.0),
    labelled: bool = True,
    failures: bool = True,
) -> dict[str, Path]:
    """Write everything that the report reads and return its paths by argument name."""
    paths = {"dataset": root / "data" / "objects", "data": root / "data", "models": root / "models"}
    paths |= {"results": root / "results", "runs": root / "reports"}
    dataset = paths["dataset"]
    write_dataset(dataset, train=train, test=test, num_points=num_points, labelled=labelled, failures=failures)
    for name in MAIN_JOB:
        method, builder = ("mae" if name == "mae" else "untrained"), BUILDERS.get(name, "point_mae_tiny")
        write_encoder(paths["models"], dataset, name, method=method, builder=builder, num_points=min(256, num_points))
        if labelled:
            curve = (1.0,) if name == "scratch_long" else fractions
            write_finetune(
                paths["results"], dataset, name, method=method, builder=builder, seeds=seeds, fractions=curve
            )
        if name in {"mae", "scratch"}:
            write_probe(paths["results"], dataset, name, method=method, seeds=seeds, labelled=labelled)
    write_runs(paths["runs"])
    return paths

"""Read what the earlier stages left behind; a missing or damaged piece becomes a sentence, never a crash."""

import csv
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pointloom.data.scene_store import SceneStore
from pointloom.data.shards import ObjectStore
from pointloom.report.families import Families, load_families

Arrays = dict[str, np.ndarray]
ENCODER_STAGES = ("pretrain", "align", "distill")
RUN_STAGES = ("render", "caption", "embed", *ENCODER_STAGES, "finetune", "probe")


@dataclass(frozen=True)
class EncoderRecord:
    """One folder of ``models/``.

    Attributes:
        name: Folder name, the key in ``pretrain``.
        card: Content of ``encoder.json``.
        curves: Columns of ``curves.csv``; empty for an untrained encoder.
        samples: Masked inputs and reconstructions (``samples.npz`` or ``scene_samples.npz``); empty without any.
    """

    name: str
    card: dict[str, Any]
    curves: Arrays = field(default_factory=dict)
    samples: Arrays = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        """Whether the weights were pre-trained."""
        return self.card.get("method") != "untrained"

    @property
    def step(self) -> str | None:
        """``align`` or ``distill`` for encoders of the two-stage method, None for all others."""
        method = str(self.card.get("method"))
        return method if method in {"align", "distill"} else None


@dataclass(frozen=True)
class ResultRecord:
    """One folder of ``results/align``, ``results/finetune`` or ``results/probe``.

    Attributes:
        name: Folder name, the key in the section of the stage.
        card: Content of ``result.json``.
        predictions: Content of ``predictions.npz``; empty without labels.
        curves: Columns of ``curves.csv`` (fine-tuning only).
        features: Content of ``features.npz`` (probing only).
        scenes: Content of ``scenes.npz``, a few scenes to look at (tasks on scenes only).
    """

    name: str
    card: dict[str, Any]
    predictions: Arrays = field(default_factory=dict)
    curves: Arrays = field(default_factory=dict)
    features: Arrays = field(default_factory=dict)
    scenes: Arrays = field(default_factory=dict)

    @property
    def encoder(self) -> dict[str, Any]:
        """Description of the encoder: builder, method, labels tag, sha256."""
        return dict(self.card.get("encoder", {}))

    @property
    def trained(self) -> bool:
        """Whether the encoder was pre-trained."""
        return self.encoder.get("method") != "untrained"

    @property
    def protocol(self) -> dict[str, Any]:
        """What was done: selection rule, epochs, votes, points, what a seed covers."""
        return dict(self.card.get("protocol", {}))

    @property
    def runs(self) -> list[dict[str, Any]]:
        """One entry per fraction and seed, or per protocol and seed."""
        return list(self.card.get("runs", []))


@dataclass(frozen=True)
class StageRun:
    """One metrics file of an earlier stage: its numbers and its cost."""

    stage: str
    name: str
    metrics: dict[str, float]
    run: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Records:
    """What the stages after ``prepare`` left behind.

    Attributes:
        encoders: By folder name, in alphabetical order.
        finetune: By folder name.
        probe: By folder name.
        align: By folder name.
        stages: One record per metrics file, in the order of the pipeline.
        problems: Sentences about pieces that are missing, damaged or made from other data.
    """

    encoders: dict[str, EncoderRecord]
    finetune: dict[str, ResultRecord]
    probe: dict[str, ResultRecord]
    align: dict[str, ResultRecord]
    stages: list[StageRun]
    problems: list[str]

    def encoder_of(self, result: ResultRecord) -> EncoderRecord | None:
        """Return the encoder a result was made with, matched by the checksum of its weights."""
        digest = result.encoder.get("sha256")
        matches = [encoder for encoder in self.encoders.values() if encoder.card.get("weights_sha256") == digest]
        return matches[0] if matches and digest else None

    def training_cost(self, encoder: EncoderRecord | None) -> float | None:
        """Return the CPU seconds of an encoder's training and of all that its weights come from, None if unknown.

        Fresh weights cost nothing. Views, captions and cached teacher features are data, not training.
        """
        total, seen = 0.0, set[str]()
        by_weights = {str(other.card.get("weights_sha256")): other for other in self.encoders.values()}
        while encoder is not None and encoder.trained and encoder.name not in seen:
            seen.add(encoder.name)
            spent = self._own_cost(encoder)
            if spent is None:
                return None
            total += spent
            if (parent := encoder.card.get("parent_sha256")) is None:
                return total
            encoder = by_weights.get(str(parent))
        return None if encoder is None else total

    def _own_cost(self, encoder: EncoderRecord) -> float | None:
        for stage in self.stages:
            if stage.stage in ENCODER_STAGES and stage.name == encoder.name and stage.run.get("cpu_s") is not None:
                return float(stage.run["cpu_s"])
        return None


@dataclass(frozen=True, kw_only=True)
class ReportInputs(Records):
    """Everything the report on objects is made from.

    Attributes:
        store: The prepared objects.
        families: Views, captions, teacher features and search indices; empty without multimodal stages.
    """

    store: ObjectStore
    families: Families


@dataclass(frozen=True, kw_only=True)
class SceneInputs(Records):
    """Everything the report on scenes is made from.

    Attributes:
        store: The prepared scenes.
    """

    store: SceneStore


def load_inputs(*, dataset: Path, data: Path, models: Path, results: Path, runs: Path) -> ReportInputs:
    """Read the store, all encoders, all results and all metrics files.

    Args:
        dataset: Prepared store.
        data: Folder with ``views/``, ``captions/`` and ``features/``; they may be absent.
        models: Folder with one folder per encoder; may be absent.
        results: Folder with ``align/``, ``finetune/`` and ``probe/``; may be absent, as it is for unlabelled data.
        runs: Folder with the metrics files of the earlier stages; may be absent.

    Raises:
        DataError: The store is missing or damaged.
    """
    store = ObjectStore(dataset)
    records = _load_records(models=models, results=results, runs=runs)
    families = load_families(
        data=data, results=results, dataset_digest=store.info.digest, problems=records.problems
    )  # fmt: skip
    inputs = ReportInputs(store=store, families=families, **vars(records))
    _check_digests(inputs, store.info.digest)
    return inputs


def load_scene_inputs(*, dataset: Path, models: Path, results: Path, runs: Path) -> SceneInputs:
    """Read the store of scenes, all encoders, all results and all metrics files; arguments as for ``load_inputs``.

    Raises:
        DataError: The store is missing or damaged.
    """
    store = SceneStore(dataset)
    inputs = SceneInputs(store=store, **vars(_load_records(models=models, results=results, runs=runs)))
    _check_digests(inputs, store.info.digest)
    return inputs


def _load_records(*, models: Path, results: Path, runs: Path) -> Records:
    problems: list[str] = []
    return Records(
        encoders={folder.name: _load_encoder(folder, problems) for folder in _folders(models, "encoder.json")},
        finetune=_load_results(results / "finetune", problems),
        probe=_load_results(results / "probe", problems),
        align=_load_results(results / "align", problems),
        stages=_load_stages(runs, problems),
        problems=problems,
    )


def _folders(parent: Path, marker: str) -> list[Path]:
    return sorted(path.parent for path in parent.glob(f"*/{marker}"))


def _load_encoder(folder: Path, problems: list[str]) -> EncoderRecord:
    return EncoderRecord(
        name=folder.name,
        card=_read_json(folder / "encoder.json", problems),
        curves=_read_csv(folder / "curves.csv", problems),
        samples=_read_npz(folder / "samples.npz", problems) | _read_npz(folder / "scene_samples.npz", problems),
    )


def _load_results(parent: Path, problems: list[str]) -> dict[str, ResultRecord]:
    return {
        folder.name: ResultRecord(
            name=folder.name,
            card=_read_json(folder / "result.json", problems),
            predictions=_read_npz(folder / "predictions.npz", problems),
            curves=_read_csv(folder / "curves.csv", problems),
            features=_read_npz(folder / "features.npz", problems),
            scenes=_read_npz(folder / "scenes.npz", problems),
        )
        for folder in _folders(parent, "result.json")
    }


def _load_stages(runs: Path, problems: list[str]) -> list[StageRun]:
    files = sorted(runs.glob("prepare.json"))
    for stage in RUN_STAGES:
        files += sorted(runs.glob(f"{stage}/*.json"))
    records = []
    for file in files:
        content = _read_json(file, problems)
        run = content.get("run", {})
        stage = file.stem if file.parent == runs else file.parent.name
        records.append(StageRun(stage=stage, name=file.stem, metrics=content.get("metrics", {}), run=run))
    return records


def _check_digests(inputs: Records, digest: str) -> None:
    """Note every encoder and result that was made from other data than the store; rooms in blocks never are in it."""
    found = [(f"models/{encoder.name}", encoder.card.get("data_digest")) for encoder in inputs.encoders.values()]
    for stage, results in (("align", inputs.align), ("finetune", inputs.finetune), ("probe", inputs.probe)):
        found += [
            (f"results/{stage}/{name}", result.card.get("data", {}).get("digest"))
            for name, result in results.items()
            if result.card.get("task") != "semantic_segmentation"
        ]
    for where, other in found:
        if other is not None and other != digest:
            inputs.problems.append(
                f"{where} was made from data {str(other)[:12]}, the store is {digest[:12]}: run `pointloom run` again."
            )


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{path.parent.name}/{path.name} could not be read ({error}).")
        return {}
    return content if isinstance(content, dict) else {}


def _read_npz(path: Path, problems: list[str]) -> Arrays:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        problems.append(f"{path.parent.name}/{path.name} could not be read ({error}).")
        return {}


def _read_csv(path: Path, problems: list[str]) -> Arrays:
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {key: np.array([float(row[key] or "nan") for row in rows]) for key in rows[0]} if rows else {}
    except (OSError, ValueError, TypeError) as error:
        problems.append(f"{path.parent.name}/{path.name} could not be read ({error}).")
        return {}

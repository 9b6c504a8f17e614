"""How hard are the synthetic objects? Train a small PointNet for a few epochs and print its test accuracy.

The default is the calibration the generator is held to: 20 epochs, 750 train and 250 test objects, 70 to 95 %.
Run it with ``python benchmarks/synthetic_calibration.py``.
"""

from __future__ import annotations

import time
from itertools import pairwise

import click
import numpy as np
import torch
from torch import Tensor, nn

from pointloom.data.synthetic import CATEGORIES, SyntheticObject, generate_object


class SmallPointNet(nn.Module):
    """Shared layers 3-64-128-256, maximum over points, then 256-128-classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        widths = (3, 64, 128, 256)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        self.points = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(256, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, num_classes))

    def forward(self, coord: Tensor) -> Tensor:
        batch, num_points, _ = coord.shape
        return self.head(self.points(coord.reshape(-1, 3)).reshape(batch, num_points, -1).amax(dim=1))


def sample(item: SyntheticObject, num_points: int, rng: np.random.Generator) -> np.ndarray:
    """Return (num_points, 3) random surface points in the store's frame: box centre at 0, bounding radius 1."""
    corners = item.vertices[item.faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    total = np.cumsum(area)
    face = np.searchsorted(total, rng.random(num_points) * total[-1]).clip(0, len(area) - 1)
    a, b = np.sqrt(rng.random((num_points, 1))), rng.random((num_points, 1))
    point = (1 - a) * corners[face, 0] + a * (1 - b) * corners[face, 1] + a * b * corners[face, 2]
    point -= (item.vertices.max(axis=0) + item.vertices.min(axis=0)) / 2
    return (point / np.linalg.norm(point, axis=1).max()).astype(np.float32)


def train(coord: Tensor, label: Tensor, *, epochs: int, num_classes: int, seed: int) -> SmallPointNet:
    torch.manual_seed(seed)
    model = SmallPointNet(num_classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(coord)).split(32):
            if len(rows) < 2:
                continue
            batch = coord[rows][:, torch.randperm(coord.shape[1])[:1024]]
            scale = 0.8 + 0.4 * torch.rand(len(rows), 1, 1)
            batch = batch * scale + 0.01 * torch.randn_like(batch)
            loss = nn.functional.cross_entropy(model(batch), label[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def print_confusions(label: np.ndarray, predicted: np.ndarray) -> None:
    names = list(CATEGORIES)
    recall = {name: (predicted[label == i] == i).mean() for i, name in enumerate(names)}
    click.echo("recall %: " + ", ".join(f"{name} {100 * value:.0f}" for name, value in recall.items()))
    pairs = [((label == i) & (predicted == j)).sum() for i in range(len(names)) for j in range(len(names)) if i != j]
    named = [(a, b) for a in names for b in names if a != b]
    worst = sorted(zip(pairs, named, strict=True), reverse=True)[:10]
    click.echo("confusions: " + ", ".join(f"{a}->{b} {count}" for count, (a, b) in worst))


@click.command(context_settings={"show_default": True})
@click.option("--num-train", default=750, help="Objects to train on.")
@click.option("--num-test", default=250, help="Objects to test on.")
@click.option("--epochs", default=20)
@click.option("--seeds", default=3, help="How many data sets and trainings; each seed makes its own objects.")
def main(num_train: int, num_test: int, epochs: int, seeds: int) -> None:
    """Print the accuracy of a small PointNet on synthetic objects."""
    torch.set_num_threads(1)
    num_classes, scores = len(CATEGORIES), []
    all_label, all_predicted = [], []
    for seed in range(seeds):
        start = time.process_time()
        rng = np.random.default_rng(seed)
        coord = np.stack([sample(generate_object(i, seed=seed), 2048, rng) for i in range(num_train + num_test)])
        label = np.arange(num_train + num_test) % num_classes
        prepared = time.process_time()
        cloud, target = torch.from_numpy(coord), torch.from_numpy(label)
        model = train(cloud[:num_train], target[:num_train], epochs=epochs, num_classes=num_classes, seed=seed)
        with torch.no_grad():
            predicted = torch.cat([model(part[:, :1024]).argmax(dim=1) for part in cloud[num_train:].split(50)]).numpy()
        scores.append(100 * float((predicted == label[num_train:]).mean()))
        all_label.append(label[num_train:])
        all_predicted.append(predicted)
        click.echo(
            f"seed {seed}: {scores[-1]:.1f} %  (objects and points {prepared - start:.1f} CPU s, "
            f"training {time.process_time() - prepared:.1f} CPU s)"
        )
    click.echo(f"overall accuracy {np.mean(scores):.1f} +- {np.std(scores):.1f} % over {seeds} seeds, {epochs} epochs")
    print_confusions(np.concatenate(all_label), np.concatenate(all_predicted))


if __name__ == "__main__":
    main()

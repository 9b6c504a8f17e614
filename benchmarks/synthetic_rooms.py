"""How fast rooms are made, and what is in them: one thread, CPU time.

python benchmarks/synthetic_rooms.py [--rooms 56]
"""

import time

import click
import numpy as np

from pointloom.data.synthetic_rooms import BOX_CLASSES, ROOM_CLASSES, synthetic_scenes

POINTS = (20_000, 32_768, 40_000)


@click.command()
@click.option("--rooms", default=56, show_default=True, help="A multiple of 7 has all kinds equally often.")
def main(rooms: int) -> None:
    """Print seconds per room for several numbers of points, then shares of the classes and numbers of boxes."""
    next(synthetic_scenes(1, seed=1, num_points=1000))  # compiles
    for num_points in POINTS:
        started = time.process_time()
        scenes = list(synthetic_scenes(rooms, seed=0, num_points=num_points))
        spent = (time.process_time() - started) / rooms
        click.echo(f"{num_points:,} points: {spent:.3f} CPU s a room, {60 / spent:.0f} rooms a minute")
    segment = np.concatenate([scene.segment for scene in scenes])
    labels = np.concatenate([scene.boxes.label for scene in scenes if scene.boxes is not None])
    sentences = [sentence for scene in scenes for sentence in scene.sentences]
    unique = np.mean([sentence.unique for sentence in sentences])
    click.echo(f"a room: {len(labels) / rooms:.1f} boxes, {len(sentences) / rooms:.1f} sentences, {unique:.0%} unique")
    shares = np.bincount(segment[segment >= 0], minlength=len(ROOM_CLASSES)) / len(segment)
    click.echo("points: " + ", ".join(f"{name} {share:.1%}" for name, share in zip(ROOM_CLASSES, shares, strict=True)))
    counts = np.bincount(labels, minlength=len(BOX_CLASSES))
    click.echo("boxes: " + ", ".join(f"{name} {count}" for name, count in zip(BOX_CLASSES, counts, strict=True)))


if __name__ == "__main__":
    main()

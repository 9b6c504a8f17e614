"""How fast are views made? Render part of a prepared store as the stage does and print views per second.

Run it with ``python benchmarks/render_views.py SOURCE DATASET``; the target is 100 views of 224 pixels per second with
EGL on two quiet cores. CPU time per view does not depend on what else the machine does, so that is printed too.
"""

import os
import resource
import time
from pathlib import Path

import click
import numpy as np

from pointloom.data.shards import ObjectStore
from pointloom.data.workers import map_in_workers
from pointloom.render.backend import choose_renderer
from pointloom.render.cameras import LAYOUTS, Rig
from pointloom.render.objects import ObjectRenderer
from pointloom.render.samples import SampleGrid
from pointloom.stages.render import list_items


def cpu_seconds() -> float:
    """CPU time of finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@click.command(context_settings={"show_default": True})
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("dataset", type=click.Path(exists=True, path_type=Path))
@click.option("--objects", default=200, help="How many objects, chosen at random.")
@click.option("--layout", type=click.Choice(list(LAYOUTS)), default="openshape12")
@click.option("--size", default=224)
@click.option("--supersample", default=2)
@click.option("--renderer", type=click.Choice(["auto", "egl", "raycast"]), default="auto")
@click.option("--workers", default=0, help="Processes; 0 means one per core.")
def main(
    source: Path, dataset: Path, objects: int, layout: str, size: int, supersample: int, renderer: str, workers: int
) -> None:
    """Print views per second, and CPU time per view without the start of the processes."""
    items = list_items(ObjectStore(dataset), source)
    chosen = choose_renderer(renderer, require_gpu=False)
    grid = SampleGrid(Rig(layout=layout, size=size, fov_degrees=40.0), supersample)
    function = ObjectRenderer(source=source, dataset=dataset, grid=grid, renderer=chosen.name)
    order = np.random.default_rng(0).permutation(len(items))

    def run(num: int) -> tuple[float, float, int]:
        """Return wall time, CPU time of the workers, and the number of finished objects."""
        cpu, start = cpu_seconds(), time.perf_counter()
        outcomes = map_in_workers(
            function,
            [items[i] for i in order[:num]],
            num_workers=workers,
            timeout_s=120.0,
            max_memory_gb=4.0,
            warm_up=function.warm_up,
        )
        done = sum(outcome.result is not None for outcome in outcomes)
        return time.perf_counter() - start, cpu_seconds() - cpu, done

    idle_wall, idle_cpu, started = run(workers or len(os.sched_getaffinity(0)))
    wall, cpu, done = run(objects)
    views = (done - started) * len(LAYOUTS[layout])
    load = os.getloadavg()[0]
    click.echo(
        f"{chosen.name} on {chosen.device}, {layout}, {size} px, {supersample} x {supersample} samples per pixel"
    )
    click.echo(f"{done} of {min(objects, len(items))} objects; load average {load:.1f}")
    click.echo(f"{views / (wall - idle_wall):.0f} views/s, {1000 * (cpu - idle_cpu) / views:.2f} CPU ms per view")


if __name__ == "__main__":
    main()

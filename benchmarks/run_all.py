"""Run all benchmarks that need no data, and compare the results of two runs.

    make bench [OUTPUT=folder]
    make bench-compare A=folder B=folder

Every number is a ratio of two ways to do the same on one machine in one run, so runs on different machines and under
different load can be compared; single ratios say by how much they vary.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

BENCHMARKS = ("operators", "step", "scaling", "data_engine", "stages")


@click.group()
def main() -> None:
    """Measure, or compare two measurements."""


@main.command()
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
def run(output: Path) -> None:
    """Write the tables of all benchmarks, and all of them in ``bench.md``, to OUTPUT."""
    for name in BENCHMARKS:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", str(output)], check=True)
    sections = []
    for name in BENCHMARKS:
        record = json.loads((output / f"{name}.json").read_text())
        about = (
            f"{record['processor']}, {record['cores']} cores, torch {record['torch']}, load average {record['load']}"
        )
        sections.append(f"## {name}\n\n{about}\n\n{(output / f'{name}.md').read_text()}")
    (output / "bench.md").write_text("# Benchmarks\n\n" + "\n".join(sections))
    click.echo(f"wrote {output / 'bench.md'}")


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("other", type=click.Path(exists=True, file_okay=False, path_type=Path))
def compare(folder: Path, other: Path) -> None:
    """Print the ratios of FOLDER and OTHER side by side."""
    for name in BENCHMARKS:
        if not all((each / f"{name}.json").exists() for each in (folder, other)):
            click.echo(f"{name}: not in both folders\n")
            continue
        first, second = (json.loads((each / f"{name}.json").read_text()) for each in (folder, other))
        click.echo(compare_tables(name, first, second))


def compare_tables(name: str, first: dict[str, Any], second: dict[str, Any]) -> str:
    """Return a Markdown table of the ratios that both have."""
    about = [f"{each['processor']}, torch {each['torch']}, load average {each['load']}" for each in (first, second)]
    lines = [f"## {name}", "", f"A: {about[0]}; B: {about[1]}", "", "| what | A | B | B / A |", "|---|---|---|---|"]
    others = {row["name"]: row["ratio"] for row in second["rows"]}
    for row in first["rows"]:
        if row["name"] in others:
            was, now = row["ratio"], others[row["name"]]
            lines.append(f"| {row['name']} | {was:.2f} | {now:.2f} | **{now / was:.2f}** |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

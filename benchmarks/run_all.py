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
MACHINE = {"processor", "cores", "torch", "load"}


@click.group()
def main() -> None:
    """Measure, or compare two measurements."""


@main.command()
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
def run(output: Path) -> None:
    """Write the tables of all benchmarks, and all of them in ``bench.md``, to OUTPUT."""
    for name in BENCHMARKS:
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", str(output)], check=False)
        if done.returncode != 0:
            raise click.ClickException(f"benchmarks.{name} failed (exit code {done.returncode}); what it said is above")
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
    both = [name for name in BENCHMARKS if all((each / f"{name}.json").exists() for each in (folder, other))]
    if not both:
        raise click.ClickException(
            f"{folder} and {other} share no result; `make bench OUTPUT=folder` writes {BENCHMARKS[0]}.json, ..."
        )
    for name in BENCHMARKS:
        if name in both:
            click.echo(compare_tables(name, *(read_record(each / f"{name}.json") for each in (folder, other))))
        else:
            click.echo(f"{name}: not in both folders\n")


def read_record(file: Path) -> dict[str, Any]:
    """Return what a benchmark has written.

    Raises:
        click.ClickException: It is no such file.
    """
    try:
        record = json.loads(file.read_text())
        if record.keys() >= MACHINE and all(isinstance(row["ratio"], float) for row in record["rows"]):
            return dict(record)
        problem = f"rows with a ratio, {', '.join(sorted(MACHINE))} must be there"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
    raise click.ClickException(f"{file} is not what a benchmark writes ({problem}); measure anew")


def compare_tables(name: str, first: dict[str, Any], second: dict[str, Any]) -> str:
    """Return a Markdown table of the ratios that both have, with the range of single repeats where it is known."""
    about = [f"{each['processor']}, torch {each['torch']}, load average {each['load']}" for each in (first, second)]
    lines = [f"## {name}", "", f"A: {about[0]}; B: {about[1]}", ""]
    settings = [{k: v for k, v in each.items() if k not in MACHINE | {"rows"}} for each in (first, second)]
    if settings[0] != settings[1]:
        lines += [f"**Not the same measurement:** A has {settings[0]}, B has {settings[1]}", ""]
    lines += ["| what | A | B | B / A |", "|---|---|---|---|"]
    others = {row["name"]: row for row in second["rows"]}
    for row in first["rows"]:
        if row["name"] in others:
            other = others[row["name"]]
            change = f"**{other['ratio'] / row['ratio']:.2f}**" if row["ratio"] else ""
            lines.append(f"| {row['name']} | {_with_spread(row)} | {_with_spread(other)} | {change} |")
    return "\n".join(lines) + "\n"


def _with_spread(row: dict[str, Any]) -> str:
    spread = f" ({row['lowest']:.2f} to {row['highest']:.2f})" if "highest" in row else ""
    return f"{row['ratio']:.2f}{spread}"


if __name__ == "__main__":
    main()

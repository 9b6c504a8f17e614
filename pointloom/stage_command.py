"""A stage as a sub-command: its options are its paths, its help ends with all parameters."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pointloom.stages.fan_out import Shard
from pointloom.stages.launch import run_stage
from pointloom.stages.signature import STATE_DEFAULT, StageSignature, describe_params, read_signature


class StageCommand(click.Command):
    """A stage; its help ends with all parameters, their ranges and their meaning."""

    signature: StageSignature

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of parameters."""
        super().format_epilog(ctx, formatter)
        for model in self.signature.params:
            rows = []
            for item in describe_params(model):
                text = "; ".join(part for part in (item.type, item.limits) if part)
                rows.append((item.name, f"{_prose(item.doc)} [{text}]".strip()))
            first_line = _prose(model.__doc__ or "").splitlines()[0].rstrip(".")
            kind = f": {first_line}" if len(self.signature.params) > 1 else ""
            with formatter.section(f"Parameters (section {self.signature.name!r} of params.yaml){kind}"):
                formatter.write_dl(rows, col_max=34)


def stage_command(name: str, function: Callable[..., None]) -> StageCommand:
    """Return the sub-command of a stage."""
    signature = read_signature(name, function)
    options: list[click.Parameter] = [
        click.Option(
            ["--params"],
            required=True,
            metavar="FILE:SECTION|JSON",
            help=f"Parameters: for example params.yaml:{name} (dots go deeper), or a JSON object.",
        )
    ]
    for argument, artifact in signature.artifacts.items():
        is_state = artifact.direction == "state"
        need: dict[str, Any] = {"default": str(STATE_DEFAULT), "show_default": True} if is_state else {"required": True}
        options.append(
            click.Option(
                [f"--{argument.replace('_', '-')}", argument],
                type=click.Path(path_type=Path),
                metavar="PATH",
                help=f"{artifact.help[0].upper()}{artifact.help[1:]} [{artifact.direction}].",
                **need,
            )
        )
    options.append(
        click.Option(["--executor-input"], metavar="JSON", help="Given by Kubeflow Pipelines; of no use elsewhere.")
    )
    if signature.splits:
        options += _shard_options()

    def run(
        params: str, executor_input: str | None, shard: int | None = None, num_shards: int | None = None, **paths: Path
    ) -> None:
        from pointloom.stages.read_params import read_params

        values = read_params(signature.params, params)
        if shard is not None and num_shards is not None:
            function(values, **paths, shard=Shard(shard, num_shards))
        elif shard is not None or num_shards is not None:
            raise click.UsageError(
                "--shard and --num-shards go together: --shard 0 --num-shards 4 is the first of four"
            )
        elif executor_input is None:
            run_stage(signature, values, paths)
        else:
            from pointloom.stages.executor import run_step

            run_step(signature, values, paths, executor_input)

    command = StageCommand(name, params=options, callback=run, help=_prose(signature.doc))
    command.signature = signature
    return command


def _shard_options() -> list[click.Parameter]:
    part = "Do only a part: every N-th object (or block of objects) from the I-th, 0 to N-1. It is kept in --state and "
    part += "nothing is written; the same command without --shard afterwards does what is missing and writes."
    return [
        click.Option(["--shard"], type=int, metavar="I", help=part),
        click.Option(["--num-shards"], type=int, metavar="N", help="Number of parts; with --shard."),
    ]


def _prose(doc: str) -> str:
    """Return a docstring without its sections and its code marks."""
    return re.split(r"\n(?:Args|Returns|Raises):", doc)[0].strip().replace("``", "")

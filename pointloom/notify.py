"""Tell a webhook how a pipeline has ended: ``python -m pointloom.notify``, the exit task of Kubeflow pipelines.

The address is a secret, so it comes from the environment (``POINTLOOM_WEBHOOK``) and is never printed. The body is
``{"text": sentence, ...details}``, which Slack, Mattermost and Google Chat show as a message.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any

import click

TIMEOUT_S = 20.0


def message(*, name: str, run: str, status: str) -> dict[str, Any]:
    """Return what is sent.

    Args:
        name: Name of the pipeline run.
        run: Its id.
        status: KFP's ``PipelineTaskFinalStatus`` as JSON; anything else counts as unknown.
    """
    try:
        found = json.loads(status)
        state, reason = str(found["state"]), str((found.get("error") or {}).get("message") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        state, reason = "UNKNOWN", ""
    text = f"pointloom: {name} has ended: {state}" + (f" ({reason})" if reason else "")
    return {"text": text, "pipeline": name, "run_id": run, "state": state, "reason": reason}


def send(address: str, body: dict[str, Any], *, timeout_s: float = TIMEOUT_S) -> str | None:
    """Post a message; return what went wrong, without the address, None when it arrived."""
    try:
        request = urllib.request.Request(
            address, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=timeout_s):
            return None
    except urllib.error.HTTPError as error:
        return f"the webhook answered {error.code}"
    except (OSError, ValueError) as error:
        return f"the webhook was not reached ({type(getattr(error, 'reason', error)).__name__})"


@click.command()
@click.option("--name", required=True, help="Name of the pipeline run.")
@click.option("--run", required=True, help="Its id.")
@click.option("--status", default="", help="KFP's PipelineTaskFinalStatus as JSON.")
def main(name: str, run: str, status: str) -> None:
    """Send the message; a webhook that cannot be reached is said, and fails nothing but this step."""
    address = os.environ.get("POINTLOOM_WEBHOOK")
    if not address:
        click.echo("notify: POINTLOOM_WEBHOOK is not set; give the secret's name in pipelines/cluster.yaml", err=True)
        sys.exit(2)
    problem = send(address, message(name=name, run=run, status=status))
    if problem:
        click.echo(f"notify: {problem}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
